//! The callback's `operationID` header.

use clap::ValueEnum;
use http::{HeaderMap, HeaderName};
use importguard_core::{IdError, OperationId};

use super::Rejection;

/// The header's name in the `http` crate; on the wire, its case does not matter.
const HEADER: HeaderName = HeaderName::from_static("operationid");

/// How a callback without a usable operationID is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnMissingOperationId {
    /// Refuse it with 5904
    Require,
    /// Generate an operationID for it
    Generate,
}

/// The operationID of a callback, and what the caller sent if one is generated instead.
pub fn operation_id(
    headers: &HeaderMap,
    on_missing: OnMissingOperationId,
) -> (Result<OperationId, Rejection>, Option<String>) {
    match (from_headers(headers), on_missing) {
        (Err(_), OnMissingOperationId::Generate) => {
            let id = OperationId::parse(format!("importguard-{}", uuid::Uuid::now_v7()));
            (id.map_err(Rejection::OperationIdInvalid), replaced(headers))
        }
        (id, _) => (id, None),
    }
}

/// Maximum length of a replaced operationID in events, in characters: that of an operationID.
const MAX_REPLACED: usize = OperationId::MAX_BYTES;

/// The header's values, comma-separated, without control characters and cut to 256 characters. `None` if there are none.
fn replaced(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(HEADER).iter();
    let values: Vec<_> = values
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    let text = values.join(", ");
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let text: String = text.chars().take(MAX_REPLACED).map(printable).collect();
    (!text.is_empty()).then_some(text)
}

fn from_headers(headers: &HeaderMap) -> Result<OperationId, Rejection> {
    let mut values = headers.get_all(HEADER).iter();
    let value = values.next().ok_or(Rejection::OperationIdMissing)?;
    if values.next().is_some() {
        return Err(Rejection::OperationIdRepeated);
    }
    let text = value
        .to_str()
        .map_err(|_| Rejection::OperationIdInvalid(IdError::NotVisibleAscii))?;
    match OperationId::parse(text) {
        Ok(id) => Ok(id),
        Err(IdError::Empty) => Err(Rejection::OperationIdMissing),
        Err(invalid) => Err(Rejection::OperationIdInvalid(invalid)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_single_valid_header_is_used_unchanged() {
        for mode in [
            OnMissingOperationId::Require,
            OnMissingOperationId::Generate,
        ] {
            let (id, replaced) = operation_id(&with(&["1646445464564"]), mode);
            assert_eq!(id.unwrap().as_str(), "1646445464564");
            assert_eq!(replaced, None);
        }
    }

    #[test]
    fn a_missing_repeated_or_invalid_header_is_rejected() {
        let refused =
            |values: &[&'static str]| operation_id(&with(values), OnMissingOperationId::Require).0;
        assert_eq!(refused(&[]), Err(Rejection::OperationIdMissing));
        assert_eq!(refused(&[""]), Err(Rejection::OperationIdMissing));
        assert_eq!(refused(&["a", "b"]), Err(Rejection::OperationIdRepeated));
        assert_eq!(
            refused(&["a b"]),
            Err(Rejection::OperationIdInvalid(IdError::NotVisibleAscii))
        );
    }

    #[test]
    fn what_was_replaced_is_kept() {
        let replaced =
            |values: &[&'static str], on_missing| operation_id(&with(values), on_missing).1;
        let generate = OnMissingOperationId::Generate;
        assert_eq!(replaced(&["a b"], generate).as_deref(), Some("a b"));
        assert_eq!(replaced(&["a", "b"], generate).as_deref(), Some("a, b"));
        assert_eq!(replaced(&[], generate), None);
        assert_eq!(replaced(&[""], generate), None);
        assert_eq!(replaced(&["good"], generate), None);
        assert_eq!(replaced(&["a b"], OnMissingOperationId::Require), None);
        let mut headers = HeaderMap::new();
        let long = [b"\t\xff".as_slice(), &[b'x'; 400]].concat();
        headers.append(HEADER, HeaderValue::from_bytes(&long).unwrap());
        let replaced = operation_id(&headers, generate).1.unwrap();
        assert!(replaced.starts_with("\u{fffd}\u{fffd}xx"), "{replaced}");
        assert_eq!(replaced.chars().count(), 256);
    }

    #[test]
    fn an_operation_id_is_generated_if_so_configured() {
        for values in [vec![], vec!["a b"], vec!["a", "b"]] {
            let generated = || operation_id(&with(&values), OnMissingOperationId::Generate).0;
            assert_ne!(generated().unwrap(), generated().unwrap());
        }
    }
}
