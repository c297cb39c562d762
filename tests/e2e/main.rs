//! End-to-end tests: OpenIM's callbacks in, answers and events out, with real processes.

// A helper that finds something else than it expects stops its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod after_callbacks;
mod all_in_one;
mod answers;
mod asserts;
mod attacks;
mod authentication;
mod commands;
mod connections;
mod contract;
mod curl;
mod deadlines;
mod environment;
mod examples;
mod failures;
mod fallbacks;
mod flood;
mod grpc;
mod grpc_bounds;
mod half_close;
mod handbook;
mod healthcheck;
mod hostile;
mod http2;
mod images;
mod kubernetes;
mod logs;
mod memory;
mod metrics;
mod monitoring;
mod nats_access;
mod nats_permissions;
mod nats_tls;
mod open_files;
mod outages;
mod overload;
mod pass_through;
mod propagation;
mod pseudonyms;
mod recorder;
mod recording;
mod rejections;
mod reload;
mod secrets;
mod settings;
mod shutdown;
mod sighup;
mod spooling;
mod startup;
mod tail;
mod tls;
mod trace_export;
mod tracing;
mod upstream;
