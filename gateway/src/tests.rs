//! The documents in `docs/` that are generated from types. Tests compare them; `tests/regen.sh` writes them.

mod openapi;
pub(crate) mod schema;
