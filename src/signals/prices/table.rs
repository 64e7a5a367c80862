//! Prices over time, as a CSV file tells them.

use std::{collections::HashMap, sync::Arc};

use csv::ByteRecord;

use super::{FeedFault, PriceKey, Quote};
use crate::model::{Cloud, Offer, Timestamp};

/// The columns of a price file.
const HEADER: [&str; 7] = ["at", "cloud", "region", "zone", "instance_type", "offer", "usd_per_hour"];

/// Most different prices in one file. All providers together have some 30 regions x 800 machines x 3 zones x 2 offers in
/// use; beyond that, something else than prices is being read, and one fetch would hold the book for too long.
const KEYS_MAX: usize = 200_000;

/// Longest text shown from a bad field: enough to recognize it, too little to flood a log.
const FOUND_CHARS_MAX: usize = 60;

/// Every price of a file, by key and time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PriceTable {
    series: Vec<Series>,
}

/// The prices of one key, oldest first.
#[derive(Clone, Debug, PartialEq)]
struct Series {
    key: PriceKey,
    rows: Vec<(Timestamp, f64)>,
}

impl PriceTable {
    /// Reads `content`; `file` is its name in errors. Lines may come in any order; of two for the same key and time the
    /// later line counts. The numbers may be anything that is a floating-point number: judging them is the guard's work.
    ///
    /// # Errors
    /// The first bad line, with line, column, what was found and what was expected. Nothing of the file is used then.
    pub(super) fn parse(file: &str, content: &[u8]) -> Result<PriceTable, FeedFault> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(content);
        let mut rows = Rows { file, series: Vec::new(), known: HashMap::new(), names: HashMap::new() };
        let mut record = ByteRecord::new();
        let mut header_seen = false;
        loop {
            let more = reader.read_byte_record(&mut record);
            if !more.map_err(|error| FeedFault(format!("{file}: {error}")))? {
                break;
            }
            let line = line_of(&record, content);
            if header_seen {
                rows.add(&record, line)?;
            } else {
                check_header(file, &record, line)?;
                header_seen = true;
            }
        }
        if !header_seen {
            return Err(FeedFault(format!(
                "{file} is empty: expected the header `{}` and a row for each price",
                HEADER.join(",")
            )));
        }
        let mut series = rows.series;
        for one in &mut series {
            one.rows.sort_by_key(|(at, _)| *at);
        }
        Ok(PriceTable { series })
    }

    /// The price of every key that has one at `time`: its newest row that is not later.
    pub(super) fn at(&self, time: Timestamp) -> Vec<Quote> {
        let newest = |series: &Series| {
            let after = series.rows.partition_point(|(at, _)| *at <= time);
            let (at, usd_per_hour) = *series.rows.get(after.checked_sub(1)?)?;
            Some(Quote { key: series.key.clone(), at, usd_per_hour })
        };
        self.series.iter().filter_map(newest).collect()
    }

    /// The rows of every key that hold at some time from `since` to `until`, oldest first for each key.
    pub(super) fn between(&self, since: Timestamp, until: Timestamp) -> Vec<Quote> {
        let holding = |series: &Series| {
            let begun = series.rows.partition_point(|(at, _)| *at <= since);
            let end = series.rows.partition_point(|(at, _)| *at <= until);
            let rows = series.rows.get(begun.saturating_sub(1)..end).unwrap_or_default();
            let quote = |(at, usd_per_hour): &(Timestamp, f64)| Quote {
                key: series.key.clone(),
                at: *at,
                usd_per_hour: *usd_per_hour,
            };
            rows.iter().map(quote).collect::<Vec<_>>()
        };
        self.series.iter().flat_map(holding).collect()
    }

    /// When the next row after `time` begins to hold.
    pub(super) fn next_change(&self, time: Timestamp) -> Option<Timestamp> {
        let next = |series: &Series| {
            let after = series.rows.partition_point(|(at, _)| *at <= time);
            series.rows.get(after).map(|(at, _)| *at)
        };
        self.series.iter().filter_map(next).min()
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.series.iter().map(|series| series.rows.len()).sum()
    }
}

/// The table while it is being read.
struct Rows<'a> {
    file: &'a str,
    series: Vec<Series>,
    /// The five fields of a key as they stand in the file, to their place in `series`: most rows repeat a known key, and
    /// then need neither check nor allocation.
    known: HashMap<Vec<u8>, usize>,
    names: HashMap<String, Arc<str>>,
}

impl Rows<'_> {
    fn add(&mut self, record: &ByteRecord, line: u64) -> Result<(), FeedFault> {
        if record.len() != HEADER.len() {
            return Err(FeedFault(format!(
                "{}, line {line}: found {} fields, expected {}: {}",
                self.file,
                record.len(),
                HEADER.len(),
                HEADER.join(",")
            )));
        }
        let at =
            self.field(record, line, 0, "an RFC 3339 time such as 2021-03-02T00:00:00Z", |t| t.parse().ok())?;
        let usd =
            self.field(record, line, 6, "US dollars for an hour such as 0.526", |t| t.parse::<f64>().ok())?;
        let raw_key = record.range(1).map_or(0, |r| r.start)..record.range(5).map_or(0, |r| r.end);
        let raw_key = &record.as_slice()[raw_key];
        // Without separators `ab,c` and `a,bc` would be one key: the lengths tell them apart.
        let mut name = raw_key.to_vec();
        name.extend((1..=5).flat_map(|i| record.get(i).map_or(0, <[u8]>::len).to_le_bytes()));
        let place = match self.known.get(&name) {
            Some(place) => *place,
            None => {
                let key = self.key(record, line)?;
                self.series.push(Series { key, rows: Vec::new() });
                self.known.insert(name, self.series.len() - 1);
                self.series.len() - 1
            }
        };
        self.series[place].rows.push((at, usd));
        Ok(())
    }

    fn key(&mut self, record: &ByteRecord, line: u64) -> Result<PriceKey, FeedFault> {
        if self.series.len() == KEYS_MAX {
            return Err(FeedFault(format!(
                "{}, line {line}: more than {KEYS_MAX} different prices; split the file, or leave out what is not used",
                self.file
            )));
        }
        let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        let cloud = self.field(record, line, 1, "aws, gcp or other", |t| match t {
            "aws" => Some(Cloud::Aws),
            "gcp" => Some(Cloud::Gcp),
            "other" => Some(Cloud::Other),
            _ => None,
        })?;
        let region = self.field(record, line, 2, "the provider's region such as us-east-1", text)?;
        let zone = self.field(record, line, 3, "a zone or nothing", |t| Some(text(t)))?;
        let instance_type = self.field(record, line, 4, "a machine such as g5.2xlarge", text)?;
        let offer = self.field(record, line, 5, "spot or on_demand", |t| {
            [Offer::Spot, Offer::OnDemand].into_iter().find(|offer| offer.as_str() == t)
        })?;
        Ok(PriceKey {
            cloud,
            region: self.name(region),
            zone: zone.map(|zone| self.name(zone)),
            instance_type: self.name(instance_type),
            offer,
        })
    }

    /// One copy of a name, however many keys have it.
    fn name(&mut self, text: String) -> Arc<str> {
        self.names.entry(text).or_insert_with_key(|text| text.as_str().into()).clone()
    }

    fn field<T>(
        &self,
        record: &ByteRecord,
        line: u64,
        column: usize,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, FeedFault> {
        let bytes = record.get(column).unwrap_or_default();
        std::str::from_utf8(bytes).ok().and_then(read).ok_or_else(|| {
            FeedFault(format!(
                "{}, line {line}, column {} ({}): found `{}`, expected {expected}",
                self.file,
                column + 1,
                HEADER[column],
                found(bytes)
            ))
        })
    }
}

fn check_header(file: &str, record: &ByteRecord, line: u64) -> Result<(), FeedFault> {
    if record.iter().eq(HEADER.iter().map(|name| name.as_bytes())) {
        return Ok(());
    }
    Err(FeedFault(format!(
        "{file}, line {line}: found the header `{}`, expected `{}`",
        found(&record.iter().collect::<Vec<_>>().join(&b',')),
        HEADER.join(",")
    )))
}

/// The line on which a record begins. The reader counts empty lines before a record as part of it.
fn line_of(record: &ByteRecord, content: &[u8]) -> u64 {
    let Some(position) = record.position() else { return 0 };
    let rest =
        usize::try_from(position.byte()).ok().and_then(|start| content.get(start..)).unwrap_or_default();
    let empty =
        rest.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).filter(|byte| **byte == b'\n').count();
    position.line() + empty as u64
}

/// The start of a field, fit for a message.
fn found(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let short: String = text.chars().take(FOUND_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().count() > FOUND_CHARS_MAX { format!("{short}...") } else { short }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOP: &str = "at,cloud,region,zone,instance_type,offer,usd_per_hour\n";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn fault(rows: &str) -> String {
        PriceTable::parse("p.csv", format!("{TOP}{rows}").as_bytes()).unwrap_err().0
    }

    #[test]
    fn the_newest_row_that_is_not_in_the_future_holds() {
        let rows = "2021-03-03T00:00:00Z,aws,us-east-1,us-east-1a,p3.2xlarge,spot,0.95\n\
                    2021-03-02T00:00:00Z,aws,us-east-1,us-east-1a,p3.2xlarge,spot,0.918\n\
                    2021-03-02T00:00:00Z,aws,us-east-1,us-east-1a,p3.2xlarge,spot,0.919\n";
        let table = PriceTable::parse("p.csv", format!("{TOP}{rows}").as_bytes()).unwrap();
        let says = |at: &str| table.at(time(at)).first().map(|quote| quote.usd_per_hour);
        assert_eq!(says("2021-03-01T23:59:59Z"), None);
        assert_eq!(says("2021-03-02T00:00:00Z"), Some(0.919));
        assert_eq!(says("2021-03-09T00:00:00Z"), Some(0.95));
        assert_eq!(table.next_change(time("2021-03-02T00:00:00Z")), Some(time("2021-03-03T00:00:00Z")));
        assert_eq!(table.next_change(time("2021-03-03T00:00:00Z")), None);
    }

    #[test]
    fn recorded_prices_are_read() {
        let content = include_bytes!("../../../tests/data/prices_recorded.csv");
        let table = PriceTable::parse("prices_recorded.csv", content).unwrap();
        assert_eq!(table.len(), content.iter().filter(|byte| **byte == b'\n').count() - 1);
        assert!(table.at(time("2022-06-01T00:00:00Z")).iter().all(|quote| quote.usd_per_hour > 0.0));
    }

    #[test]
    fn numbers_are_not_judged_here() {
        for number in ["0", "-1", "NaN", "nan", "inf", "-inf", "1e400", "1e-400"] {
            let row = format!("{TOP}2021-03-02T00:00:00Z,gcp,us-central1,,g2-standard-8,on_demand,{number}");
            assert_eq!(PriceTable::parse("p.csv", row.as_bytes()).unwrap().len(), 1, "{number}");
        }
    }

    #[test]
    fn a_bad_line_is_named_with_column_found_and_expected() {
        insta::assert_snapshot!(
            fault("2021-03-02T00:00:00Z,aws,us-east-1,,a,spot,1\n\n\r\n2021-03-02T00:00:00Z,aws,us-east-1,,a,spot,cheap\n"),
            @"p.csv, line 5, column 7 (usd_per_hour): found `cheap`, expected US dollars for an hour such as 0.526"
        );
        insta::assert_snapshot!(
            fault("yesterday,aws,us-east-1,,a,spot,1"),
            @"p.csv, line 2, column 1 (at): found `yesterday`, expected an RFC 3339 time such as 2021-03-02T00:00:00Z"
        );
        insta::assert_snapshot!(
            fault("2021-03-02T00:00:00Z,azure,westeurope,,a,spot,1"),
            @"p.csv, line 2, column 2 (cloud): found `azure`, expected aws, gcp or other"
        );
        insta::assert_snapshot!(
            fault("2021-03-02T00:00:00Z,aws,us-east-1,,a,ondemand,1"),
            @"p.csv, line 2, column 6 (offer): found `ondemand`, expected spot or on_demand"
        );
        insta::assert_snapshot!(
            fault("2021-03-02T00:00:00Z,aws,us-east-1,,,spot,1"),
            @"p.csv, line 2, column 5 (instance_type): found ``, expected a machine such as g5.2xlarge"
        );
        insta::assert_snapshot!(
            fault("2021-03-02T00:00:00Z,aws,us-east-1\n"),
            @"p.csv, line 2: found 3 fields, expected 7: at,cloud,region,zone,instance_type,offer,usd_per_hour"
        );
    }

    #[test]
    fn the_header_is_checked() {
        let read = |content: &[u8]| PriceTable::parse("p.csv", content);
        assert!(read(b"").unwrap_err().0.contains("is empty"));
        assert!(read(b"price,cloud\n").unwrap_err().0.contains("found the header `price,cloud`"));
        assert_eq!(read(format!("\u{feff}{TOP}").as_bytes()).unwrap().len(), 0);
        assert_eq!(read(TOP.replace('\n', "\r\n").as_bytes()).unwrap().len(), 0);
    }

    #[test]
    fn keys_with_the_same_letters_are_told_apart() {
        let rows = "2021-03-02T00:00:00Z,aws,ab,c,x,spot,1\n2021-03-02T00:00:00Z,aws,a,bc,x,spot,2\n";
        let table = PriceTable::parse("p.csv", format!("{TOP}{rows}").as_bytes()).unwrap();
        assert_eq!(table.at(time("2022-01-01T00:00:00Z")).len(), 2);
    }

    proptest! {
        /// No bytes make the reader panic.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), with_header: bool) {
            let top = if with_header { TOP.as_bytes() } else { b"" };
            let _ = PriceTable::parse("p.csv", &[top, &bytes].concat());
        }
    }
}
