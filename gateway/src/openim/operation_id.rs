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

/// The operationID of a callback.
pub fn operation_id(
    headers: &HeaderMap,
    on_missing: OnMissingOperationId,
) -> Result<OperationId, Rejection> {
    match (from_headers(headers), on_missing) {
        (Ok(id), _) => Ok(id),
        (Err(reason), OnMissingOperationId::Require) => Err(reason),
        (Err(_), OnMissingOperationId::Generate) => {
            OperationId::parse(format!("importguard-{}", uuid::Uuid::now_v7()))
                .map_err(Rejection::OperationIdInvalid)
        }
    }
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
            let id = operation_id(&with(&["1646445464564"]), mode).unwrap();
            assert_eq!(id.as_str(), "1646445464564");
        }
    }

    #[test]
    fn a_missing_repeated_or_invalid_header_is_rejected() {
        let refused =
            |values: &[&'static str]| operation_id(&with(values), OnMissingOperationId::Require);
        assert_eq!(refused(&[]), Err(Rejection::OperationIdMissing));
        assert_eq!(refused(&[""]), Err(Rejection::OperationIdMissing));
        assert_eq!(refused(&["a", "b"]), Err(Rejection::OperationIdRepeated));
        assert_eq!(
            refused(&["a b"]),
            Err(Rejection::OperationIdInvalid(IdError::NotVisibleAscii))
        );
    }

    #[test]
    fn an_operation_id_is_generated_if_so_configured() {
        for values in [vec![], vec!["a b"], vec!["a", "b"]] {
            let one = operation_id(&with(&values), OnMissingOperationId::Generate).unwrap();
            let two = operation_id(&with(&values), OnMissingOperationId::Generate).unwrap();
            assert_ne!(one, two);
        }
    }
}
