use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Collected};
use time::OffsetDateTime;

/// What keeps bytes from being a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// They are no HTTP.
    Malformed,
    /// The request line and the headers are too long together, or the headers too many.
    HeadTooLarge,
    /// The request line is too long.
    UriTooLong,
    /// They stopped coming before the headers' end.
    HeadTooSlow,
    /// They are no TLS, where only that is spoken.
    NotTls,
}

impl Fault {
    /// What hyper means by a status that it answers with by itself.
    pub(super) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::HeadTooLarge,
            StatusCode::URI_TOO_LONG => Self::UriTooLong,
            _ => Self::Malformed,
        }
    }
}

/// An answer as HTTP/1.1 has it on the wire, the last one of its connection.
pub(super) async fn last_words<B: Body>(answer: Response<B>) -> Vec<u8> {
    let (head, body) = answer.into_parts();
    // A body in memory, which has no way to fail.
    let body = body.collect().await.map(Collected::to_bytes);
    let body = body.unwrap_or_default();
    let mut words = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
    for (name, value) in &head.headers {
        words.extend_from_slice(name.as_str().as_bytes());
        words.extend_from_slice(b": ");
        words.extend_from_slice(value.as_bytes());
        words.extend_from_slice(b"\r\n");
    }
    let rest = format!(
        "content-length: {}\r\nconnection: close\r\ndate: {}\r\n\r\n",
        body.len(),
        date(OffsetDateTime::now_utc())
    );
    words.extend_from_slice(rest.as_bytes());
    words.extend_from_slice(&body);
    words
}

/// RFC 9110, section 5.6.7: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn date(now: OffsetDateTime) -> String {
    format!(
        "{:.3}, {:02} {:.3} {} {:02}:{:02}:{:02} GMT",
        now.weekday().to_string(),
        now.day(),
        now.month().to_string(),
        now.year(),
        now.hour(),
        now.minute(),
        now.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_written_as_http_wants_it() {
        let then = OffsetDateTime::from_unix_timestamp(784_111_777).unwrap();
        assert_eq!(date(then), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
