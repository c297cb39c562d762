use std::error::Error;

/// The message of an error, followed by those of its causes that it does not contain.
pub fn whole_text(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn each_cause_is_named_once() {
        let layer = |text, source: Option<Layer>| Layer {
            text,
            source: source.map(Box::new),
        };
        let refused = layer("refused", None);
        let connect = layer("connect: refused", Some(refused));
        let top = layer("transport error", Some(connect));
        assert_eq!(whole_text(&top), "transport error: connect: refused");
    }
}
