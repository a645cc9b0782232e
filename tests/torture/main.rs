//! Messages that are odd, large or broken, at engines without I/O: the collections of the RFCs by
//! one table, and what they leave out.

#[path = "../lab/mod.rs"]
mod lab;

mod bodies;
mod headers;
mod lengths;
mod rfc;
mod splits;
mod table;
mod uris;
