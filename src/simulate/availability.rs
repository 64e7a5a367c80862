//! Recorded spot capacity: CSV with the columns `offset_seconds,cloud,region,zone,instance_type,available_nodes`.

use std::collections::BTreeMap;

use csv::ByteRecord;

use super::market::{Course, sum};
use crate::model::Backend;

const HEADER: [&str; 6] = ["offset_seconds", "cloud", "region", "zone", "instance_type", "available_nodes"];

/// Most nodes of one zone: more than any provider has of one machine.
const NODES_MAX: u32 = 1_000_000;

/// Longest text shown from a bad field.
const FOUND_CHARS_MAX: usize = 60;

/// How many spot nodes could be held, by cloud, region, zone and machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Availability {
    zones: BTreeMap<[String; 4], Vec<(f64, f64)>>,
}

impl Availability {
    /// Adds a recording; `file` is its name in errors.
    ///
    /// # Errors
    /// The first bad line, with line, column, what was found and what was expected.
    pub fn add(&mut self, file: &str, content: &[u8]) -> Result<(), String> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(content);
        let mut record = ByteRecord::new();
        let mut begun = false;
        while reader.read_byte_record(&mut record).map_err(|error| format!("{file}: {error}"))? {
            let line = record.position().map_or(0, csv::Position::line);
            if !begun {
                if !record.iter().eq(HEADER.map(str::as_bytes)) {
                    let found = record.iter().collect::<Vec<_>>().join(&b',');
                    let (found, expected) = (shown(&found), HEADER.join(","));
                    return Err(format!(
                        "{file}, line {line}: found the header `{found}`, expected `{expected}`"
                    ));
                }
                begun = true;
                continue;
            }
            let wrong = |column: usize, expected: &str| {
                let found = shown(record.get(column).unwrap_or_default());
                format!(
                    "{file}, line {line}, column {} ({}): found `{found}`, expected {expected}",
                    column + 1,
                    HEADER[column]
                )
            };
            let text = |column: usize| std::str::from_utf8(record.get(column).unwrap_or_default()).ok();
            let offset = text(0).and_then(|text| text.parse::<f64>().ok());
            let offset = offset
                .filter(|offset| offset.is_finite() && *offset >= 0.0)
                .ok_or_else(|| wrong(0, "seconds since the start such as 300"))?;
            let mut key: [String; 4] = Default::default();
            for (column, part) in (1..).zip(&mut key) {
                let text = text(column).filter(|text| !text.is_empty() || column == 3);
                *part = text.ok_or_else(|| wrong(column, "a name"))?.to_owned();
            }
            let nodes = text(5).and_then(|text| text.parse::<u32>().ok()).filter(|nodes| *nodes <= NODES_MAX);
            let nodes = nodes.ok_or_else(|| wrong(5, "a whole number of nodes, 0 or more"))?;
            self.zones.entry(key).or_default().push((offset, f64::from(nodes)));
        }
        if begun {
            return Ok(());
        }
        Err(format!("{file} is empty: expected the header `{}`", HEADER.join(",")))
    }

    /// The spot nodes that a backend can have over time, in all its zones together; `None` if nothing was recorded for its
    /// machine there.
    pub fn of(&self, backend: &Backend) -> Option<Course> {
        let node = backend.node.as_ref()?;
        let serves = |zone: &str| {
            zone.is_empty() || backend.zones.is_empty() || backend.zones.iter().any(|name| name == zone)
        };
        let zones: Vec<Course> = self
            .zones
            .iter()
            .filter(|([cloud, region, zone, machine], _)| {
                *cloud == backend.cloud.to_string()
                    && *region == backend.region
                    && *machine == node.instance_type
                    && serves(zone)
            })
            .map(|(_, steps)| Course::new(steps.clone()))
            .collect();
        (!zones.is_empty()).then(|| sum(&zones))
    }
}

/// The start of a field, fit for a message.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(FOUND_CHARS_MAX).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::worlds::view;

    const TWO_ZONES: &str = "offset_seconds,cloud,region,zone,instance_type,available_nodes\n\
        0,other,r,r-a,n,2\n60,other,r,r-a,n,0\n0,other,r,r-b,n,3\n0,other,r,r-b,m,9\n0,aws,r,r-b,n,9\n";

    #[test]
    fn a_backend_has_the_nodes_of_its_zones() {
        let mut availability = Availability::default();
        availability.add("a.csv", TWO_ZONES.as_bytes()).unwrap();
        let mut backend = (*view("a", 1.0).backend).clone();
        let supply = |backend: &Backend| {
            availability.of(backend).map(|course| [0.0, 60.0].map(|t| course.at(t).unwrap()))
        };
        assert_eq!(supply(&backend), Some([5.0, 3.0]));
        backend.zones = vec!["r-a".into()];
        assert_eq!(supply(&backend), Some([2.0, 0.0]));
        backend.zones = vec!["r-c".into()];
        assert_eq!(supply(&backend), None);
    }

    #[test]
    fn bad_recordings_are_named() {
        let said = |csv: &str| Availability::default().add("a.csv", csv.as_bytes()).unwrap_err();
        let row = |row: &str| {
            said(&format!("offset_seconds,cloud,region,zone,instance_type,available_nodes\n{row}\n"))
        };
        insta::assert_snapshot!(said(""), @"a.csv is empty: expected the header `offset_seconds,cloud,region,zone,instance_type,available_nodes`");
        insta::assert_snapshot!(said("at,cloud\n"), @"a.csv, line 1: found the header `at,cloud`, expected `offset_seconds,cloud,region,zone,instance_type,available_nodes`");
        insta::assert_snapshot!(row("x,aws,r,z,m,1"), @"a.csv, line 2, column 1 (offset_seconds): found `x`, expected seconds since the start such as 300");
        insta::assert_snapshot!(row("0,aws,,z,m,1"), @"a.csv, line 2, column 3 (region): found ``, expected a name");
        insta::assert_snapshot!(row("0,aws,r,z,m,-1"), @"a.csv, line 2, column 6 (available_nodes): found `-1`, expected a whole number of nodes, 0 or more");
        insta::assert_snapshot!(row("0,aws,r,z,m"), @"a.csv, line 2, column 6 (available_nodes): found ``, expected a whole number of nodes, 0 or more");
    }
}
