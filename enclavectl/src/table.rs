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
}
