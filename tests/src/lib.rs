//! The harness of the end-to-end tests: importguard's real binaries as processes, a nats-server and an OTLP receiver per test, callers
//! that behave like OpenIM, and readers of answers and events.
//!
//! Everything here listens on ports of its own and cleans up when dropped, so that tests run side by side. A test that
//! fails shows what its processes printed.

// A harness that cannot continue stops the test, and its output belongs in the test's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod admin;
mod backend;
mod binaries;
mod chart;
mod cluster;
mod decide;
mod detector;
mod events;
mod eventually;
mod exposition;
mod faketime;
mod fixed_decider;
mod foreign;
mod frames;
mod generated;
mod held;
mod help;
mod http;
mod kubernetes;
mod line;
mod load;
mod multiplexed;
mod nats;
mod occupied;
mod openim;
mod otlp;
mod policy;
mod ports;
mod process;
mod proxy;
mod raw;
mod service;
mod settings;
mod spool;
mod strace;
mod strict;
mod tls;
mod tools;
mod trace;
mod traffic;

pub use backend::Backend;
pub use binaries::Binary;
pub use chart::Chart;
pub use cluster::NatsCluster;
pub use decide::DecideClient;
pub use detector::Detector;
pub use events::{Event, StoredEvent, create_stream, stored, stored_with, wait_for_count};
pub use eventually::{SOON, eventually};
pub use exposition::assert_each_series_is_once;
pub use faketime::FakeClock;
pub use fixed_decider::FixedDecider;
pub use foreign::{Foreign, workspace};
pub use frames::{Frame, Http2Connection};
pub use generated::assert_is_current;
pub use held::HeldCall;
pub use help::{Group, Help, Setting};
pub use http::{Call, Client, Response};
pub use kubernetes::{Kustomize, Manifests};
pub use line::Line;
pub use load::load;
pub use multiplexed::Http2Client;
pub use nats::NatsServer;
pub use occupied::Occupied;
pub use openim::OpenIm;
pub use otlp::{OtlpReceiver, Span};
pub use policy::PolicyDir;
pub use ports::free_port;
pub use process::{Process, Vitals};
pub use proxy::Proxy;
pub use raw::{RawConnection, callback, post};
pub use service::Service;
pub use settings::Settings;
pub use spool::Spool;
pub use strace::Strace;
pub use strict::{Reading, ServerVersion, read_as_documented, read_as_server};
pub use tls::{MountedSecret, TestAuthority, TestCertificate};
pub use tools::{skip, tool};
pub use trace::TraceParent;
pub use traffic::{Traffic, TrafficReport};
