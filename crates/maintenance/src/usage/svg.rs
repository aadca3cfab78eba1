//! A picture of what takes how much space: a treemap in which repositories lie in the folders of their names.
//!
//! It is one file of SVG without scripts. It follows the reader's choice of light or dark, and tells more of each
//! rectangle where the pointer rests.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};

use super::treemap::{Area, divide};
use super::{RepositoryUsage, Usage};

/// The picture's size, and that of the line above.
const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 800.0;
const HEADING: f64 = 32.0;

/// The room for a folder's name, and between rectangles.
const LABEL: f64 = 16.0;
const BORDER: f64 = 2.0;

/// The height of letters, and how wide one is at most.
const LETTER_HEIGHT: f64 = 12.0;
const LETTER_WIDTH: f64 = 7.0;

/// Rectangles smaller than this are drawn as one.
const SMALLEST: f64 = 24.0;

/// How many colours there are: one for each folder of the first level, in turn.
const COLOURS: usize = 8;

const STYLE: &str = "\
svg{font:12px system-ui,sans-serif;background:#fff}\
text{fill:#1b1f24;pointer-events:none}\
.h{font-weight:600;font-size:15px}\
rect{stroke:#fff;stroke-width:1}\
.f{fill:#eceff2}\
.c0{fill:#a9cdf0}.c1{fill:#f5cfa0}.c2{fill:#b5deb0}.c3{fill:#efb4b4}\
.c4{fill:#cdbfe8}.c5{fill:#a8dcd9}.c6{fill:#eac3de}.c7{fill:#e2dc9f}\
@media(prefers-color-scheme:dark){\
svg{background:#15181c}text{fill:#f0f3f6}rect{stroke:#15181c}.f{fill:#262b31}\
.c0{fill:#1f4a73}.c1{fill:#704a17}.c2{fill:#2b5a27}.c3{fill:#722f2f}\
.c4{fill:#4a3a75}.c5{fill:#1e5855}.c6{fill:#692f58}.c7{fill:#5b5415}}";

/// The picture.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// What it shows.
    pub usage: &'a Usage,
    /// The line above.
    pub heading: &'a str,
}

/// A folder of names, or a repository, or both.
#[derive(Default)]
struct Node<'a> {
    repository: Option<&'a RepositoryUsage>,
    folders: BTreeMap<&'a str, Node<'a>>,
    /// The portions of all in it, in bytes.
    bytes: u64,
    /// How many repositories are in it.
    repositories: u64,
}

/// Something that gets a rectangle.
enum Tile<'a, 'n> {
    Repository(&'a RepositoryUsage),
    Folder(&'a str, &'n Node<'a>),
    /// What is too small to be drawn: so many repositories, of so many bytes.
    Rest(u64, u64),
}

impl Display for Picture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = Escaped(self.heading);
        writeln!(
            f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{heading}\">"
        )?;
        writeln!(f, "<style>{STYLE}</style>\n<text class=\"h\" x=\"4\" y=\"21\">{heading}</text>")?;
        let root = Node::of(&self.usage.repositories);
        let area = Area { x: 0.0, y: HEADING, width: WIDTH, height: HEIGHT - HEADING };
        root.draw(f, area, "", None)?;
        writeln!(f, "</svg>")
    }
}

impl<'a> Node<'a> {
    fn of(repositories: &'a [RepositoryUsage]) -> Self {
        let mut root = Self::default();
        for repository in repositories.iter().filter(|repository| repository.portion > 0) {
            let mut node = &mut root;
            node.add(repository);
            for component in repository.name.as_str().split('/') {
                node = node.folders.entry(component).or_default();
                node.add(repository);
            }
            node.repository = Some(repository);
        }
        root
    }

    fn add(&mut self, repository: &RepositoryUsage) {
        self.bytes += repository.portion;
        self.repositories += 1;
    }

    /// What it consists of, the largest first; what would be too small in so large an area as one.
    fn tiles(&self, size: f64) -> Vec<Tile<'a, '_>> {
        let folders =
            self.folders.iter().map(|(name, node)| match (node.repository, node.repositories) {
                (Some(repository), 1) => Tile::Repository(repository),
                _ => Tile::Folder(name, node),
            });
        let mut tiles: Vec<_> =
            self.repository.map(Tile::Repository).into_iter().chain(folders).collect();
        tiles.sort_by_key(|tile| std::cmp::Reverse(tile.bytes()));
        let smallest = self.bytes as f64 * SMALLEST / size.max(SMALLEST);
        let drawn = tiles.partition_point(|tile| tile.bytes() as f64 >= smallest);
        if tiles.len() > drawn + 1 {
            let rest = tiles.split_off(drawn);
            let count = rest.iter().map(Tile::repositories).sum();
            tiles.push(Tile::Rest(count, rest.iter().map(Tile::bytes).sum()));
            tiles.sort_by_key(|tile| std::cmp::Reverse(tile.bytes()));
        }
        tiles
    }

    /// Draws what is in the folder of this path.
    fn draw(
        &self,
        f: &mut fmt::Formatter<'_>,
        area: Area,
        path: &str,
        colour: Option<usize>,
    ) -> fmt::Result {
        let tiles = self.tiles(area.size());
        let values: Vec<_> = tiles.iter().map(|tile| tile.bytes() as f64).collect();
        for ((number, tile), area) in tiles.iter().enumerate().zip(divide(area, &values)) {
            let colour = colour.unwrap_or(number % COLOURS);
            match tile {
                Tile::Repository(repository) => {
                    let name = repository.name.as_str();
                    let label = name.strip_prefix(path).unwrap_or(name);
                    rectangle(f, area, &format!("c{colour}"), &about(repository))?;
                    label_in(f, area, label.trim_start_matches('/'), Some(repository.portion))?;
                }
                Tile::Rest(count, bytes) => {
                    let title = format!("{count} more repositories: {}", Bytes(*bytes));
                    rectangle(f, area, &format!("c{colour}"), &title)?;
                    label_in(f, area, &format!("{count} more"), Some(*bytes))?;
                }
                Tile::Folder(name, node) => {
                    let path = format!("{path}{name}/");
                    let title = format!(
                        "{path}: {}, {} repositories",
                        Bytes(node.bytes),
                        node.repositories
                    );
                    rectangle(f, area, "f", &title)?;
                    let has_label = area.height > 3.0 * LABEL && area.width > 4.0 * LETTER_WIDTH;
                    let top = if has_label { LABEL } else { 0.0 };
                    if has_label {
                        let strip = Area { height: LABEL, ..area };
                        label_in(f, strip, &format!("{name}/ {}", Bytes(node.bytes)), None)?;
                    }
                    let border =
                        if area.width.min(area.height) > 8.0 * BORDER { BORDER } else { 0.0 };
                    node.draw(f, area.inside(border, top), &path, Some(colour))?;
                }
            }
        }
        Ok(())
    }
}

impl Tile<'_, '_> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Repository(repository) => repository.portion,
            Self::Folder(_, node) => node.bytes,
            Self::Rest(_, bytes) => *bytes,
        }
    }

    fn repositories(&self) -> u64 {
        match self {
            Self::Repository(_) => 1,
            Self::Folder(_, node) => node.repositories,
            Self::Rest(count, _) => *count,
        }
    }
}

/// All there is to say of a repository.
fn about(repository: &RepositoryUsage) -> String {
    let RepositoryUsage { name, bytes, own, tags, manifests, .. } = repository;
    let (total, own, shared) = (Bytes(*bytes), Bytes(*own), Bytes(repository.shared()));
    format!("{name}: {total}, {own} its own, {shared} shared; {tags} tags, {manifests} manifests")
}

fn rectangle(f: &mut fmt::Formatter<'_>, area: Area, class: &str, title: &str) -> fmt::Result {
    let Area { x, y, width, height } = area;
    let title = Escaped(title);
    writeln!(
        f,
        "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{title}</title></rect>"
    )
}

/// Writes a name into a rectangle, cut short if need be, and a size below it; as far as there is room.
fn label_in(
    f: &mut fmt::Formatter<'_>,
    area: Area,
    label: &str,
    bytes: Option<u64>,
) -> fmt::Result {
    let letters = ((area.width - 6.0) / LETTER_WIDTH).max(0.0) as usize;
    if letters < 3 || area.height < LETTER_HEIGHT + 4.0 {
        return Ok(());
    }
    let (x, y) = (area.x + 4.0, area.y + LETTER_HEIGHT);
    let label = shortened(label, letters);
    writeln!(f, "<text x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", Escaped(&label))?;
    let size = bytes.map(|bytes| Bytes(bytes).to_string()).unwrap_or_default();
    if !size.is_empty() && size.len() <= letters && area.height >= 2.0 * LETTER_HEIGHT + 8.0 {
        let y = y + LETTER_HEIGHT + 3.0;
        writeln!(f, "<text x=\"{x:.1}\" y=\"{y:.1}\">{size}</text>")?;
    }
    Ok(())
}

fn shortened(text: &str, letters: usize) -> String {
    match text.chars().count() <= letters {
        true => text.to_owned(),
        false => text.chars().take(letters - 1).chain(['…']).collect(),
    }
}

/// Text as it stands in XML.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // XML has no way to write them.
                control if control.is_control() => f.write_char(' ')?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// A number of bytes in the unit that suits it.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].into_iter();
        let mut unit = units.next().unwrap_or_default();
        for larger in units {
            if value < 1024.0 {
                break;
            }
            value /= 1024.0;
            unit = larger;
        }
        let digits = usize::from(self.0 >= 1024 && value < 100.0);
        write!(f, "{value:.digits$} {unit}")
    }
}
