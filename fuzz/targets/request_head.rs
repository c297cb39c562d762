//! A request line and its headers: the first line is a base path, the second a request's target, the rest its headers.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use importguard_core::Dialect;
use importguard_fuzz::refuses;
use importguard_gateway::openim::{
    BasePath, Callback, OnMissingOperationId, Target, acceptable, operation_id,
};
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode;

/// What OpenIM and its documentation call the callbacks that importguard answers.
const OURS: [&[u8]; 3] = [
    b"importFriendReqBeforeCommand",
    b"callbackBeforeImportFriendsCommand",
    b"callbackAfterImportFriendsCommand",
];

fuzz_target!(|head: &[u8]| {
    let mut lines = head.split(|&byte| byte == b'\n');
    let base = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let Some(Ok(base)) = base.map(str::parse::<BasePath>) else {
        return;
    };
    if let Some(target) = lines.next() {
        recognises(&base, target);
    }
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(&line[..colon]),
            HeaderValue::from_bytes(line[colon + 1..].trim_ascii()),
        ) {
            headers.append(name, value);
        }
    }
    is_named(&headers);
    acceptable(&headers);
});

/// What is importguard's lies below the base path, and what is passed on names nothing of importguard's.
fn recognises(base: &BasePath, target: &[u8]) {
    let Ok(uri) = Uri::try_from(target) else {
        return;
    };
    let (path, query) = (uri.path(), uri.query());
    let target = Target::of(base, path, query);
    let below = target.below(path);
    match target.callback {
        Callback::Ours(command) => {
            assert!(path.starts_with(&base.to_string()));
            if command.dialect() == Dialect::Server {
                assert!(path.ends_with(command.name()));
            } else {
                let query = query.unwrap_or_default();
                assert!(query.contains(command.name()));
            }
        }
        Callback::Other => {
            let below = below.unwrap();
            assert!(below.is_empty() || below.starts_with('/'));
            let mut line = format!("{below}?{}", query.unwrap_or_default()).into_bytes();
            // However often proxies on the way encoded it.
            for _ in 0..=4 {
                let mut words = line.split(|byte| !byte.is_ascii_alphanumeric());
                assert!(!words.any(|word| OURS.iter().any(|name| word.eq_ignore_ascii_case(name))));
                line = percent_decode(&line).collect();
            }
        }
        Callback::Rejected(rejection) => refuses(target.dialect, &rejection),
    }
}

/// An operationID that is taken over fits into every header that carries it on.
fn is_named(headers: &HeaderMap) {
    match operation_id(headers, OnMissingOperationId::Require).0 {
        Ok(id) => {
            let sent = headers.get("operationid").unwrap();
            assert_eq!(sent.as_bytes(), id.as_str().as_bytes());
            assert!(id.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            assert!((1..=256).contains(&id.as_str().len()));
        }
        Err(reason) => {
            refuses(Dialect::Documented, &reason);
            refuses(Dialect::Server, &reason);
        }
    }
    let (generated, _) = operation_id(headers, OnMissingOperationId::Generate);
    assert!(generated.is_ok());
}
