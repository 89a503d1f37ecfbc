//! Texts of the parent's, for records and answers.

/// The text without characters that a terminal would obey, and without those that
/// show a text in another order than it has. The agent prints what comes from the
/// enclave by the same rule.
pub(crate) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || turns_text(character) {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}

/// Whether this is a line or paragraph separator, or a mark of the bidirectional
/// algorithm (Unicode Standard Annex #9, section 2).
fn turns_text(character: char) -> bool {
    matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_parent_are_plain() {
        let text = "a\r\n\u{1b}[2Jb\u{202e}c\u{2028}é";
        assert_eq!(printable(text), r"a\r\n\u{1b}[2Jb\u{202e}c\u{2028}é");
    }
}
