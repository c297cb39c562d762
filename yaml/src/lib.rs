//! Reads importguard's YAML files strictly: an unknown key, a wrong type or an ambiguous value is an error with its position and a remedy.
//!
//! [`mod@file`] reads a file, [`yaml`] parses it into a tree with positions, [`fields`] reads typed values from the tree, [`diagnostic`]
//! collects and formats errors, and [`document`] has the common parts of the files.

pub mod diagnostic;
pub mod document;
pub mod fields;
pub mod file;
mod quoting;
pub mod yaml;
