//! Authentication on engines without I/O: who is challenged, what is believed, what passes.

#[path = "../lab/mod.rs"]
mod lab;

mod bearer;
mod client;
mod departed;
mod dialogs;
mod guesses;
mod identities;
mod lines;
mod register;
mod replay;
mod requests;
mod settings;
mod tickets;
mod upgrade;
