//! A table of measurements and their limits.

use std::fmt;

const COLUMNS: usize = 5;

/// What a measurement is held against.
pub(crate) struct Limit {
    kind: Kind,
    value: f64,
    unit: &'static str,
}

enum Kind {
    AtMost,
    AtLeast,
}

impl Limit {
    pub(crate) const fn at_most(value: f64) -> Self {
        Self {
            kind: Kind::AtMost,
            value,
            unit: "",
        }
    }

    pub(crate) const fn at_least(value: f64) -> Self {
        Self {
            kind: Kind::AtLeast,
            value,
            unit: "",
        }
    }

    pub(crate) const fn below(value: f64, unit: &'static str) -> Self {
        Self {
            kind: Kind::AtMost,
            value,
            unit,
        }
    }

    fn is_kept(&self, value: f64) -> bool {
        match self.kind {
            Kind::AtMost => value <= self.value,
            Kind::AtLeast => value >= self.value,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            Kind::AtMost => "≤",
            Kind::AtLeast => "≥",
        };
        write!(f, "{sign} {:.2} {}", self.value, self.unit)
    }
}

pub(crate) struct Table {
    rows: Vec<[String; COLUMNS]>,
    all_kept: bool,
}

impl Table {
    pub(crate) fn new(header: [&str; COLUMNS]) -> Self {
        Self {
            rows: vec![header.map(str::to_owned)],
            all_kept: true,
        }
    }

    /// A row without a limit.
    pub(crate) fn show<const N: usize>(&mut self, cells: [&str; N]) {
        let mut row = [const { String::new() }; COLUMNS];
        for (cell, text) in row.iter_mut().zip(cells) {
            text.clone_into(cell);
        }
        self.rows.push(row);
    }

    /// A row with a value that has a limit.
    pub(crate) fn judge(&mut self, cells: [&str; 3], value: f64, limit: Limit) {
        let kept = limit.is_kept(value);
        self.all_kept &= kept;
        let [name, time, beside] = cells;
        let verdict = if kept { "kept" } else { "BROKEN" };
        let (value, limit) = (
            format!("{value:.2} {}", limit.unit),
            format!("{limit} {verdict}"),
        );
        self.show([name, time, beside, &value, &limit]);
    }

    pub(crate) const fn all_kept(&self) -> bool {
        self.all_kept
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let mut line = String::new();
            for (index, cell) in row.iter().enumerate() {
                let width = self
                    .rows
                    .iter()
                    .map(|row| row[index].chars().count())
                    .max()
                    .unwrap_or(0);
                line += &format!("{cell:<width$}  ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
