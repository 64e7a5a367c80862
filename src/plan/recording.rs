//! Recorded requests: CSV with the columns `offset_seconds,requests` (one row a period), or
//! `offset_seconds,prompt_tokens,output_tokens` (one row a request).

use csv::ByteRecord;

/// Longest text shown from a bad field.
const FOUND_CHARS_MAX: usize = 60;

/// A row of a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Seconds since the start of the recording; never less than in the row before.
    pub offset_seconds: f64,
    /// Requests in the period that begins there; 1 where a row is a request.
    pub requests: f64,
    /// Prompt and output tokens of the request, where a row is a request.
    pub tokens: Option<(f64, f64)>,
}

/// Reads every row. `file` is the name in errors.
///
/// # Errors
/// The first bad line, with line, column, what was found and what was expected; a file without a header.
pub fn rows(file: &str, content: &[u8]) -> Result<Vec<Row>, String> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(content);
    let mut record = ByteRecord::new();
    let mut form = None;
    let mut rows: Vec<Row> = Vec::new();
    while reader.read_byte_record(&mut record).map_err(|error| format!("{file}: {error}"))? {
        let line = record.position().map_or(0, csv::Position::line);
        let Some(form) = form else {
            form = Some(header(file, line, &record)?);
            continue;
        };
        let number = |column: usize, name: &str, expected: &str| {
            let found = record.get(column).unwrap_or_default();
            let number = std::str::from_utf8(found).ok().and_then(|text| text.parse::<f64>().ok());
            number.filter(|number| number.is_finite() && *number >= 0.0).ok_or_else(|| {
                let (column, found) = (column + 1, shown(found));
                format!("{file}, line {line}, column {column} ({name}): found `{found}`, expected {expected}")
            })
        };
        let offset_seconds = number(0, "offset_seconds", "seconds since the start such as 60")?;
        if rows.last().is_some_and(|before| before.offset_seconds > offset_seconds) {
            return Err(format!(
                "{file}, line {line}, column 1 (offset_seconds): found {offset_seconds}, expected no less than in the line before"
            ));
        }
        rows.push(match form {
            Form::Counted => {
                let requests = number(1, "requests", "a number of requests, 0 or more")?;
                Row { offset_seconds, requests, tokens: None }
            }
            Form::Single => {
                let expected = "a number of tokens, 0 or more";
                let tokens = (number(1, "prompt_tokens", expected)?, number(2, "output_tokens", expected)?);
                Row { offset_seconds, requests: 1.0, tokens: Some(tokens) }
            }
        });
    }
    if form.is_none() {
        return Err(format!("{file} is empty: expected the header `offset_seconds,requests`"));
    }
    Ok(rows)
}

/// What a row stands for.
#[derive(Clone, Copy)]
enum Form {
    Counted,
    Single,
}

fn header(file: &str, line: u64, record: &ByteRecord) -> Result<Form, String> {
    let names: Vec<&[u8]> = record.iter().collect();
    match names.as_slice() {
        [b"offset_seconds", b"requests"] => Ok(Form::Counted),
        [b"offset_seconds", b"prompt_tokens", b"output_tokens"] => Ok(Form::Single),
        _ => Err(format!(
            "{file}, line {line}: found the header `{}`, expected `offset_seconds,requests` or \
             `offset_seconds,prompt_tokens,output_tokens`",
            shown(&names.join(&b','))
        )),
    }
}

/// The start of a field, fit for a message.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(FOUND_CHARS_MAX).flat_map(char::escape_debug).collect()
}
