//! The fields of an object of the configuration, taken out of it one by one. No complaint quotes what is there, which may
//! be a secret; each names the field with its place.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Value};

use super::ConfigError;

/// The fields of an object that have not been taken yet.
pub struct Fields {
    /// The object's place in the configuration.
    place: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Those of the object at a place.
    pub fn new(place: impl Into<String>, value: Value) -> Result<Self, ConfigError> {
        let place = place.into();
        match value {
            Value::Object(map) => Ok(Self { place, map }),
            _ => Err(wrong(place, "must be an object")),
        }
    }

    fn place_of(&self, name: &str) -> String {
        if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) }
    }

    /// The complaint about a field.
    pub fn wrong(&self, name: &str, problem: impl Display) -> ConfigError {
        wrong(self.place_of(name), problem)
    }

    /// Whether a field is set.
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// The names of the fields.
    pub fn names(&self) -> Vec<String> {
        self.map.keys().cloned().collect()
    }

    /// A field of any type; `None` if it is not set.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// A text; `None` if it is not set.
    pub fn take_text(&mut self, name: &str) -> Result<Option<String>, ConfigError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "must be a text")),
        }
    }

    /// A text that must be there.
    pub fn need_text(&mut self, name: &str) -> Result<String, ConfigError> {
        let text = self.take_text(name)?;
        text.ok_or_else(|| self.wrong(name, "is missing"))
    }

    /// A text that is parsed; `None` if it is not set.
    pub fn take_parsed<T: FromStr<Err: Display>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, ConfigError> {
        let text = self.take_text(name)?;
        let parsed = text.map(|text| text.parse()).transpose();
        parsed.map_err(|error| self.wrong(name, error))
    }

    /// Yes or no; `None` if it is not set.
    pub fn take_flag(&mut self, name: &str) -> Result<Option<bool>, ConfigError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.wrong(name, "must be true or false")),
        }
    }

    /// A whole number within these bounds; `None` if it is not set.
    pub fn take_number(
        &mut self,
        name: &str,
        bounds: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let number = value.as_u64().filter(|number| bounds.contains(number));
        let (least, most) = bounds.into_inner();
        let problem = || self.wrong(name, format!("must be a number from {least} to {most}"));
        number.map(Some).ok_or_else(problem)
    }

    /// A whole number of 32 bits that is not less than `least`; `None` if it is not set.
    pub fn take_u32(&mut self, name: &str, least: u64) -> Result<Option<u32>, ConfigError> {
        let number = self.take_number(name, least..=u32::MAX.into())?;
        Ok(number.and_then(|number| number.try_into().ok()))
    }

    /// A time: a number of seconds, or a text; `None` if it is not set.
    pub fn take_time(&mut self, name: &str) -> Result<Option<Duration>, ConfigError> {
        let time = match self.take(name) {
            None => return Ok(None),
            Some(Value::String(text)) => humantime::parse_duration(&text).ok(),
            Some(value) => {
                let seconds = value.as_u64().filter(|seconds| u32::try_from(*seconds).is_ok());
                seconds.map(Duration::from_secs)
            }
        };
        let problem =
            "must be a time: a number of seconds, or a text such as \"1m 30s\" or \"500ms\"";
        time.map(Some).ok_or_else(|| self.wrong(name, problem))
    }

    /// An object; one without fields if it is not set.
    pub fn take_object(&mut self, name: &str) -> Result<Fields, ConfigError> {
        let value = self.take(name).unwrap_or_else(|| Value::Object(Map::new()));
        Fields::new(self.place_of(name), value)
    }

    /// A list, each of its entries with its place; empty if it is not set.
    pub fn take_list(&mut self, name: &str) -> Result<Vec<(String, Value)>, ConfigError> {
        let list = match self.take(name) {
            None => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(self.wrong(name, "must be a list")),
        };
        let place = self.place_of(name);
        let entry = |(number, entry)| (format!("{place}[{number}]"), entry);
        Ok(list.into_iter().enumerate().map(entry).collect())
    }

    /// A list of objects; empty if it is not set.
    pub fn take_objects<T>(
        &mut self,
        name: &str,
        read: fn(Fields) -> Result<T, ConfigError>,
    ) -> Result<Vec<T>, ConfigError> {
        let mut all = Vec::new();
        for (place, entry) in self.take_list(name)? {
            all.push(read(Fields::new(place, entry)?)?);
        }
        Ok(all)
    }

    /// A list of texts that are parsed; empty if it is not set.
    pub fn take_parsed_list<T: FromStr<Err: Display>>(
        &mut self,
        name: &str,
    ) -> Result<Vec<T>, ConfigError> {
        let mut all = Vec::new();
        for (place, entry) in self.take_list(name)? {
            let Value::String(text) = entry else {
                return Err(wrong(place, "must be a text"));
            };
            all.push(text.parse().map_err(|error| wrong(place, error))?);
        }
        Ok(all)
    }

    /// The same, with one entry at least.
    pub fn need_parsed_list<T: FromStr<Err: Display>>(
        &mut self,
        name: &str,
    ) -> Result<Vec<T>, ConfigError> {
        let list = self.take_parsed_list(name)?;
        if list.is_empty() {
            Err(self.wrong(name, "must have an entry at least"))
        } else {
            Ok(list)
        }
    }

    /// Complains about a field that is none.
    pub fn end(self) -> Result<(), ConfigError> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => Err(self.wrong(name, "is unknown: there is no such field")),
        }
    }
}

/// The complaint about what is at a place.
pub fn wrong(place: String, problem: impl Display) -> ConfigError {
    let place = if place.is_empty() { "the configuration".to_owned() } else { place };
    ConfigError::Field { place, problem: problem.to_string() }
}
