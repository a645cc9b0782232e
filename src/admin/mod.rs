//! L5: metrics, health: what an operator asks for over HTTP.
