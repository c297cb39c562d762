//! Numbers in messages.

/// Formats a number of IDs with its unit: `1 ID`, `1,204 IDs`.
pub fn number_of_ids(count: u64) -> String {
    match count {
        1 => "1 ID".to_owned(),
        count => format!("{} IDs", grouped(count)),
    }
}

/// Formats `1204` as `1,204`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
