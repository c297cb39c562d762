//! The callback's `operationID`, from its header.

use clap::ValueEnum;
use http::{HeaderMap, HeaderName};
use importguard_core::{IdError, OperationId};

use super::Rejection;

/// The header as the `http` crate holds it; on the wire its spelling does not matter.
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
    match (sent(headers), on_missing) {
        (Ok(id), _) => Ok(id),
        (Err(reason), OnMissingOperationId::Require) => Err(reason),
        (Err(_), OnMissingOperationId::Generate) => {
            OperationId::parse(format!("importguard-{}", uuid::Uuid::now_v7()))
                .map_err(Rejection::OperationIdInvalid)
        }
    }
}

fn sent(headers: &HeaderMap) -> Result<OperationId, Rejection> {
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
    fn one_usable_header_is_taken_as_it_is() {
        for mode in [
            OnMissingOperationId::Require,
            OnMissingOperationId::Generate,
        ] {
            let id = operation_id(&with(&["1646445464564"]), mode).unwrap();
            assert_eq!(id.as_str(), "1646445464564");
        }
    }

    #[test]
    fn anything_else_is_refused() {
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
    fn or_replaced_by_a_new_one_where_the_operator_wants_that() {
        for values in [vec![], vec!["a b"], vec!["a", "b"]] {
            let one = operation_id(&with(&values), OnMissingOperationId::Generate).unwrap();
            let two = operation_id(&with(&values), OnMissingOperationId::Generate).unwrap();
            assert_ne!(one, two);
        }
    }
}
