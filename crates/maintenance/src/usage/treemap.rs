//! A treemap's geometry: rectangles whose areas are in proportion to values, as near to squares as can be.
//!
//! Source: Bruls, Huizing and van Wijk, "Squarified Treemaps" (2000).

/// A rectangle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Area {
    /// The rectangle without so much at each side, and `top` more above.
    pub fn inside(self, border: f64, top: f64) -> Self {
        Self {
            x: self.x + border,
            y: self.y + border + top,
            width: (self.width - 2.0 * border).max(0.0),
            height: (self.height - 2.0 * border - top).max(0.0),
        }
    }

    /// How large it is.
    pub fn size(self) -> f64 {
        self.width * self.height
    }
}

/// Divides a rectangle among values, which are in falling order; a value of 0 gets nothing.
pub fn divide(area: Area, values: &[f64]) -> Vec<Area> {
    let total: f64 = values.iter().sum();
    let mut areas = Vec::with_capacity(values.len());
    let mut rest = area;
    let scale = if total > 0.0 { area.size() / total } else { 0.0 };
    let sizes: Vec<f64> = values.iter().map(|value| value * scale).collect();
    let mut begin = 0;
    while begin < sizes.len() {
        let side = rest.width.min(rest.height);
        let mut end = begin + 1;
        while end < sizes.len()
            && worst(&sizes[begin..=end], side) <= worst(&sizes[begin..end], side)
        {
            end += 1;
        }
        rest = lay(rest, &sizes[begin..end], &mut areas);
        begin = end;
    }
    areas
}

/// How far the worst of these, side by side along a side of this length, is from a square.
fn worst(sizes: &[f64], side: f64) -> f64 {
    let sum: f64 = sizes.iter().sum();
    let breadth = sum / side;
    let ratio = |size: &f64| {
        let length = size / breadth;
        (breadth / length).max(length / breadth)
    };
    sizes.iter().map(ratio).fold(0.0, f64::max)
}

/// Lays these side by side along the shorter side, and gives what is left.
fn lay(area: Area, sizes: &[f64], areas: &mut Vec<Area>) -> Area {
    let sum: f64 = sizes.iter().sum();
    let is_wide = area.width >= area.height;
    let side = if is_wide { area.height } else { area.width };
    let breadth = if side > 0.0 { sum / side } else { 0.0 };
    let mut at = 0.0;
    for size in sizes {
        let length = if breadth > 0.0 { size / breadth } else { 0.0 };
        areas.push(match is_wide {
            true => Area { x: area.x, y: area.y + at, width: breadth, height: length },
            false => Area { x: area.x + at, y: area.y, width: length, height: breadth },
        });
        at += length;
    }
    match is_wide {
        true => Area { x: area.x + breadth, width: (area.width - breadth).max(0.0), ..area },
        false => Area { y: area.y + breadth, height: (area.height - breadth).max(0.0), ..area },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Area = Area { x: 10.0, y: 20.0, width: 600.0, height: 400.0 };

    /// The example of the paper: 6, 6, 4, 3, 2, 2, 1 in six by four.
    #[test]
    fn the_papers_example_comes_out_as_there() {
        let areas = divide(WHOLE, &[6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0]);
        let expected = [
            (0.0, 0.0, 3.0, 2.0),
            (0.0, 2.0, 3.0, 2.0),
            (3.0, 0.0, 1.714, 2.333),
            (4.714, 0.0, 1.286, 2.333),
            (3.0, 2.333, 1.2, 1.667),
            (4.2, 2.333, 1.2, 1.667),
            (5.4, 2.333, 0.6, 1.667),
        ];
        assert_eq!(areas.len(), expected.len());
        for (area, (x, y, width, height)) in areas.iter().zip(expected) {
            let found = [area.x - 10.0, area.y - 20.0, area.width, area.height];
            let expected = [x, y, width, height].map(|length| length * 100.0);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 0.1, "{area:?}, not {expected:?}");
            }
        }
    }

    #[test]
    fn areas_are_in_proportion_and_within_the_whole() {
        for values in [
            vec![],
            vec![0.0],
            vec![1.0],
            vec![5.0, 0.0, 0.0],
            vec![1e15, 1.0, 1e-3],
            (0..200).map(|n| 1000.0 / f64::from(n + 1)).collect(),
        ] {
            let areas = divide(WHOLE, &values);
            assert_eq!(areas.len(), values.len());
            let total: f64 = values.iter().sum();
            for (area, value) in areas.iter().zip(&values) {
                let expected = if total > 0.0 { WHOLE.size() * value / total } else { 0.0 };
                assert!((area.size() - expected).abs() < 1e-3, "{area:?} of {value}");
                assert!(area.x >= 10.0 - 1e-6 && area.x + area.width <= 610.0 + 1e-6, "{area:?}");
                assert!(area.y >= 20.0 - 1e-6 && area.y + area.height <= 420.0 + 1e-6, "{area:?}");
            }
        }
    }
}
