//! Which message was being handled when the engine failed: the log shows it beside the panic, so that
//! the fault can be found. Absent on purpose: going on after it; the panic passes through.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What a panic of the engine carries when a message was being handled.
#[derive(Debug)]
pub struct Mishap {
    /// What the panic says.
    pub words: String,
    /// The message, as it came.
    pub message: Box<[u8]>,
}

impl Mishap {
    /// What a panic of a protocol carries; `message` is empty when none was being handled.
    pub fn of(panic: Box<dyn Any + Send>) -> Mishap {
        match panic.downcast::<Mishap>() {
            Ok(mishap) => *mishap,
            Err(panic) => Mishap { words: words(panic.as_ref()), message: Box::default() },
        }
    }
}

/// Does `work`, which handles `message`. Costs nothing unless it panics.
pub(super) fn blaming(message: &[u8], work: impl FnOnce()) {
    // Nothing is looked at again: whoever catches the panic ends this engine.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
        let mut mishap = Mishap::of(panic);
        if mishap.message.is_empty() {
            mishap.message = message.into();
        }
        resume_unwind(Box::new(mishap));
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_names_the_innermost_message() {
        for (panics, words, message) in [(true, "at once", "inner"), (false, "later", "outer")] {
            let caught = catch_unwind(|| {
                blaming(b"outer", || {
                    blaming(b"inner", || assert!(!panics, "at {}", "once"));
                    panic!("later");
                });
            });
            let mishap = Mishap::of(caught.unwrap_err());
            assert_eq!((mishap.words.as_str(), &*mishap.message), (words, message.as_bytes()));
        }
    }

    #[test]
    fn a_panic_without_a_message_is_told_as_it_is() {
        let caught = catch_unwind(|| panic!("alone"));
        let mishap = Mishap::of(caught.unwrap_err());
        assert_eq!((mishap.words.as_str(), mishap.message.len()), ("alone", 0));
        let caught = catch_unwind(|| resume_unwind(Box::new(7)));
        assert_eq!(Mishap::of(caught.unwrap_err()).words, "a panic without a message");
    }
}
