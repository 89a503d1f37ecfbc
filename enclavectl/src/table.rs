//! Text in columns.

use std::fmt::Write;

/// Rows under a header, as wide as their widest cell. A last column is not filled up.
pub(crate) fn columns(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names and values, one a line; those without a value are left out.
pub(crate) fn pairs(rows: &[(&str, Option<String>)]) -> String {
    let shown: Vec<_> = rows
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in shown {
        let _ = writeln!(text, "{name:<width$}  {value}");
    }
    text
}

/// An id, a name or a message from elsewhere: nothing that a terminal obeys, and no
/// line separator or mark of the bidirectional algorithm (Unicode Standard Annex #9,
/// section 2), which show a text in another order than it has.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|character| {
            let turns_text = matches!(
                character,
                '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            );
            if character.is_control() || turns_text {
                ' '
            } else {
                character
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = vec![
            vec!["a".to_owned(), "DEPLOYED".to_owned()],
            vec!["longer".to_owned(), "FAILED".to_owned()],
        ];
        assert_eq!(
            columns(&["ID", "STATUS"], &rows),
            "ID      STATUS\na       DEPLOYED\nlonger  FAILED\n"
        );
    }

    #[test]
    fn what_is_not_known_takes_no_line() {
        let text = pairs(&[
            ("id", Some("a".to_owned())),
            ("error", None),
            ("image", Some(String::new())),
        ]);
        assert_eq!(text, "id  a\n");
    }

    #[test]
    fn nothing_reaches_the_terminal_that_it_obeys() {
        assert_eq!(plain("a\u{1b}[31mb\n"), "a [31mb ");
    }
}
