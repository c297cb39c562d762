//! Reads importguard's YAML files strictly: an unknown key, a wrong type or an ambiguous value is an error with its position and how to
//! correct it.
//!
//! [`yaml`] parses a file into a tree with positions, [`fields`] reads typed values from the tree, [`diagnostic`] collects and
//! shows what is wrong, and [`document`] has what the files have in common.

pub mod diagnostic;
pub mod document;
pub mod fields;
pub mod yaml;
