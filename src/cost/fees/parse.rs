//! Reads fees from CSV.

use std::{collections::HashMap, sync::Arc};

use csv::ByteRecord;
use jiff::civil::Date;

use super::row::{Fee, Key, Row, Service, Unit, is_pattern};
use crate::model::Cloud;

/// The columns of a file of fees.
const HEADER: [&str; 9] = ["cloud", "service", "item", "region", "unit", "from", "usd", "as_of", "source"];

/// Longest text shown from a bad field.
const FOUND_CHARS_MAX: usize = 60;

/// Length of a date as it is written, `2026-01-31`.
const DATE_LEN: usize = 10;

/// What is wrong with a file of fees. One sentence: file, line, column, found, expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FeeFault(String);

/// Reads `content`; `file` is its name in errors. Lines may come in any order.
///
/// # Errors
/// The first bad line. Nothing of the file is used then.
pub(super) fn parse(file: &str, content: &[u8]) -> Result<Vec<Row>, FeeFault> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(content);
    let mut rows = Rows { file, found: Vec::new(), known: HashMap::new() };
    let mut record = ByteRecord::new();
    let mut header_seen = false;
    while reader.read_byte_record(&mut record).map_err(|error| FeeFault(format!("{file}: {error}")))? {
        let line = Line { file, number: line_of(&record, content), record: &record };
        if header_seen {
            rows.add(&line)?;
        } else {
            line.check_header()?;
            header_seen = true;
        }
    }
    if !header_seen {
        return Err(FeeFault(format!(
            "{file} is empty: expected the header `{}` and a row for each fee",
            HEADER.join(",")
        )));
    }
    rows.finish()
}

/// A row while it is being read, with the number of the line of each of its steps.
struct Found {
    row: Row,
    lines: Vec<u64>,
}

/// The file while it is being read.
struct Rows<'a> {
    file: &'a str,
    found: Vec<Found>,
    /// The place of a key in `found`.
    known: HashMap<Key, usize>,
}

impl Rows<'_> {
    fn add(&mut self, line: &Line<'_>) -> Result<(), FeeFault> {
        if line.record.len() != HEADER.len() {
            return Err(line.fault(&format!(
                "found {} fields, expected {}: {}",
                line.record.len(),
                HEADER.len(),
                HEADER.join(",")
            )));
        }
        let key = line.key()?;
        let fee = line.fee(&key)?;
        let from = line.from(&key)?;
        let place = *self.known.entry(key.clone()).or_insert_with(|| {
            self.found.push(Found { row: Row { key, steps: Vec::new() }, lines: Vec::new() });
            self.found.len() - 1
        });
        let Found { row, lines } = &mut self.found[place];
        if let Some(twice) = row.steps.iter().position(|(other, _)| *other == from) {
            return Err(line.fault(&format!(
                "found a second fee for what line {} is about, expected one",
                lines[twice]
            )));
        }
        if let Some((_, other)) = row.steps.first().filter(|(_, other)| other.unit != fee.unit) {
            let expected = format!("{} as in line {}", other.unit, lines[0]);
            return Err(line.unexpected(4, &expected));
        }
        row.steps.push((from, fee));
        lines.push(line.number);
        Ok(())
    }

    fn finish(self) -> Result<Vec<Row>, FeeFault> {
        let mut rows = Vec::with_capacity(self.found.len());
        for Found { mut row, lines } in self.found {
            row.steps.sort_by(|a, b| a.0.total_cmp(&b.0));
            if row.steps.first().is_none_or(|(from, _)| *from != 0.0) {
                return Err(FeeFault(format!(
                    "{}, line {}: found a price from {} on and none below, expected another row from 0 on",
                    self.file,
                    lines.iter().min().copied().unwrap_or_default(),
                    row.steps.first().map_or(0.0, |(from, _)| *from)
                )));
            }
            rows.push(row);
        }
        Ok(rows)
    }
}

/// One line of the file.
struct Line<'a> {
    file: &'a str,
    number: u64,
    record: &'a ByteRecord,
}

impl Line<'_> {
    fn check_header(&self) -> Result<(), FeeFault> {
        if self.record.iter().eq(HEADER.iter().map(|name| name.as_bytes())) {
            return Ok(());
        }
        let header = found(&self.record.iter().collect::<Vec<_>>().join(&b','));
        Err(self.fault(&format!("found the header `{header}`, expected `{}`", HEADER.join(","))))
    }

    fn key(&self) -> Result<Key, FeeFault> {
        let cloud = self.field(0, "aws, gcp or other", |text| {
            [Cloud::Aws, Cloud::Gcp, Cloud::Other].into_iter().find(|cloud| cloud.to_string() == text)
        })?;
        let service = self.field(1, &format!("one of {}", Service::names()), Service::named)?;
        let pattern = |text: &str| is_pattern(text).then(|| Arc::from(text));
        let item: Arc<str> = self.field(2, "a name, the start of one and `*`, or `*` for all", pattern)?;
        if let Err(expected) = service.units(&item) {
            return Err(self.unexpected(2, expected));
        }
        let region =
            self.field(3, "a region such as us-east-1, the start of one and `*`, or `*` for all", pattern)?;
        Ok(Key { cloud, service, item, region })
    }

    fn fee(&self, key: &Key) -> Result<Fee, FeeFault> {
        let units = key.service.units(&key.item).unwrap_or_default();
        let expected = units.iter().map(|unit| unit.as_str()).collect::<Vec<_>>().join(" or ");
        let unit = self.field(4, &expected, |text| Unit::named(text).filter(|unit| units.contains(unit)))?;
        let source: Arc<str> = self.field(8, "the page or document that says so", |text| {
            (!text.is_empty()).then(|| Arc::from(text))
        })?;
        let free = source.to_lowercase().contains("free");
        let usd = self.field(
            6,
            "US dollars for one unit such as 0.09, and 0 only where the source says `free`",
            |text| number(text).filter(|usd| *usd > 0.0 || free),
        )?;
        let as_of = self.field(7, "a date such as 2026-01-31", |text| {
            (text.len() == DATE_LEN).then(|| text.parse::<Date>().ok()).flatten()
        })?;
        Ok(Fee { usd, unit, as_of, source })
    }

    /// The volume in a month from which the fee holds.
    fn from(&self, key: &Key) -> Result<f64, FeeFault> {
        if key.service == Service::InternetEgress {
            return self.field(
                5,
                "the volume in a month from which the price holds, such as 0 or 10240",
                number,
            );
        }
        self.field(5, "0, for only internet-egress has prices by volume", |text| {
            number(text).filter(|from| *from == 0.0)
        })
    }

    fn field<T>(
        &self,
        column: usize,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, FeeFault> {
        let bytes = self.record.get(column).unwrap_or_default();
        std::str::from_utf8(bytes).ok().and_then(read).ok_or_else(|| self.unexpected(column, expected))
    }

    fn unexpected(&self, column: usize, expected: &str) -> FeeFault {
        FeeFault(format!(
            "{}, line {}, column {} ({}): found `{}`, expected {expected}",
            self.file,
            self.number,
            column + 1,
            HEADER[column],
            found(self.record.get(column).unwrap_or_default())
        ))
    }

    fn fault(&self, what: &str) -> FeeFault {
        FeeFault(format!("{}, line {}: {what}", self.file, self.number))
    }
}

/// A finite number that is not below zero.
fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)
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

    const TOP: &str = "cloud,service,item,region,unit,from,usd,as_of,source\n";

    fn read(rows: &str) -> Result<Vec<Row>, FeeFault> {
        parse("fees.csv", format!("{TOP}{rows}").as_bytes())
    }

    fn fault(rows: &str) -> String {
        read(rows).unwrap_err().to_string()
    }

    #[test]
    fn the_steps_of_one_key_are_one_row_in_order_of_volume() {
        let rows = read(
            "aws,internet-egress,*,x,GB,10,0.08,2026-01-31,a page\n\
             aws,internet-egress,*,x,GB,0,0.09,2026-01-31,a page\n\
             aws,disk,gp3,x,GB-month,0,0.08,2026-01-31,\"a page, and another\"\n",
        )
        .unwrap();
        assert_eq!(rows.len(), 2);
        let steps: Vec<_> = rows[0].steps.iter().map(|(from, fee)| (*from, fee.usd)).collect();
        assert_eq!(steps, [(0.0, 0.09), (10.0, 0.08)]);
        assert_eq!(&*rows[1].steps[0].1.source, "a page, and another");
    }

    #[test]
    fn a_bad_line_is_named_with_column_found_and_expected() {
        insta::assert_snapshot!(
            fault("\n\r\naws,disk,gp3,us-east-1,GB-month,0,cheap,2026-01-31,a page"),
            @"fees.csv, line 4, column 7 (usd): found `cheap`, expected US dollars for one unit such as 0.09, and 0 only where the source says `free`"
        );
        insta::assert_snapshot!(
            fault("azure,disk,p10,westeurope,GB-month,0,1,2026-01-31,a page"),
            @"fees.csv, line 2, column 1 (cloud): found `azure`, expected aws, gcp or other"
        );
        insta::assert_snapshot!(
            fault("aws,disks,gp3,us-east-1,GB-month,0,1,2026-01-31,a page"),
            @"fees.csv, line 2, column 2 (service): found `disks`, expected one of internet-egress, inter-region, cross-zone, cluster, eks-auto-mode, disk, cloud-run, fargate, sagemaker, vertex-ai"
        );
        insta::assert_snapshot!(
            fault("aws,sagemaker,g5.xlarge,us-east-1,hour,0,1,2026-01-31,a page"),
            @"fees.csv, line 2, column 3 (item): found `g5.xlarge`, expected an instance such as ml.g5.xlarge"
        );
        insta::assert_snapshot!(
            fault("aws,disk,gp3,us-*-1,GB-month,0,1,2026-01-31,a page"),
            @"fees.csv, line 2, column 4 (region): found `us-*-1`, expected a region such as us-east-1, the start of one and `*`, or `*` for all"
        );
        insta::assert_snapshot!(
            fault("aws,disk,gp3,us-east-1,GB,0,1,2026-01-31,a page"),
            @"fees.csv, line 2, column 5 (unit): found `GB`, expected GB-month or GiB-month"
        );
        insta::assert_snapshot!(
            fault("aws,disk,gp3,us-east-1,GB-month,5,1,2026-01-31,a page"),
            @"fees.csv, line 2, column 6 (from): found `5`, expected 0, for only internet-egress has prices by volume"
        );
        insta::assert_snapshot!(
            fault("aws,disk,gp3,us-east-1,GB-month,0,1,31.1.2026,a page"),
            @"fees.csv, line 2, column 8 (as_of): found `31.1.2026`, expected a date such as 2026-01-31"
        );
        insta::assert_snapshot!(
            fault("aws,disk,gp3,us-east-1,GB-month,0,1,2026-01-31,"),
            @"fees.csv, line 2, column 9 (source): found ``, expected the page or document that says so"
        );
        insta::assert_snapshot!(
            fault("aws,disk,gp3"),
            @"fees.csv, line 2: found 3 fields, expected 9: cloud,service,item,region,unit,from,usd,as_of,source"
        );
    }

    #[test]
    fn rows_that_contradict_each_other_are_refused() {
        let row = "aws,disk,gp3,us-east-1,GB-month,0,1,2026-01-31,a page\n";
        insta::assert_snapshot!(
            fault(&format!("{row}{row}")),
            @"fees.csv, line 3: found a second fee for what line 2 is about, expected one"
        );
        insta::assert_snapshot!(
            fault("aws,internet-egress,*,x,GB,0,1,2026-01-31,a page\naws,internet-egress,*,x,GiB,9,1,2026-01-31,a page\n"),
            @"fees.csv, line 3, column 5 (unit): found `GiB`, expected GB as in line 2"
        );
        insta::assert_snapshot!(
            fault("aws,internet-egress,*,x,GB,10240,1,2026-01-31,a page\n"),
            @"fees.csv, line 2: found a price from 10240 on and none below, expected another row from 0 on"
        );
    }

    #[test]
    fn a_fee_is_a_number_above_zero_or_said_to_be_free() {
        for usd in ["NaN", "inf", "-inf", "-1", "-0", "0", "0.0", "1e-400", "1e400", ""] {
            let row = format!("aws,disk,gp3,us-east-1,GB-month,0,{usd},2026-01-31,a page");
            assert!(fault(&row).contains("column 7 (usd)"), "{usd}");
        }
        let free = "aws,cross-zone,*,*,GB,0,0,2026-01-31,Free of charge by contract";
        assert_eq!(read(free).unwrap()[0].steps[0].1.usd, 0.0);
    }

    #[test]
    fn the_header_is_checked() {
        let read = |content: &[u8]| parse("fees.csv", content);
        assert!(read(b"").unwrap_err().to_string().contains("is empty"));
        assert!(read(b"price,cloud\n").unwrap_err().to_string().contains("found the header `price,cloud`"));
        assert_eq!(read(format!("\u{feff}{TOP}").as_bytes()).unwrap().len(), 0);
        assert_eq!(read(TOP.replace('\n', "\r\n").as_bytes()).unwrap().len(), 0);
    }

    proptest! {
        /// No bytes make the reader panic.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), with_header: bool) {
            let top = if with_header { TOP.as_bytes() } else { b"" };
            let _ = parse("fees.csv", &[top, &bytes].concat());
        }
    }
}
