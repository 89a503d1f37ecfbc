//! Text exposition format 0.0.4.

use std::fmt::Write;

/// The page as far as it is written.
#[derive(Default)]
pub(super) struct Page {
    pub(super) text: String,
    name: &'static str,
}

impl Page {
    /// Begins a family of samples.
    pub(super) fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        // Writing to a string cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A sample of the family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.name(labels);
        let _ = writeln!(self.text, " {value}");
    }

    /// The same, of something that is counted.
    pub(super) fn count(&mut self, labels: &[(&str, &str)], value: u64) {
        self.name(labels);
        let _ = writeln!(self.text, " {value}");
    }

    fn name(&mut self, labels: &[(&str, &str)]) {
        self.text += self.name;
        for (index, (name, value)) in labels.iter().enumerate() {
            let opening = if index == 0 { '{' } else { ',' };
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(self.text, "{opening}{name}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
    }
}
