//! How clients lose their flows, and by what they are known when they are back on others.

/// How a flow ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Fin,
    Reset,
    /// Not at all, as far as anybody can see: it reads nothing and answers no ping.
    Silent,
}

pub const ENDS: [End; 3] = [End::Fin, End::Reset, End::Silent];

/// By what a client is known again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    ByRegId,
    ByContact,
}

pub const KNOWN: [Known; 2] = [Known::ByRegId, Known::ByContact];

/// How far a call is when a client loses its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Ringing,
    Answered,
    OnHold,
}

pub const STATES: [State; 3] = [State::Ringing, State::Answered, State::OnHold];
