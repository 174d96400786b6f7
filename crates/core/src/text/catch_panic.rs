//! Catches panics of third-party code on user or model input; the panic hook is not called.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Installed once: a hook taken while another is set would be lost.
static HOOK: Once = Once::new();

/// Returns the result of `work`, or its panic. Only catches panics of this thread.
///
/// The first call wraps the current panic hook, which still gets all other panics. A hook set later
/// replaces the wrapper: set it before.
pub fn catch_panic<R>(work: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    HOOK.call_once(|| {
        let outer = take_hook();
        set_hook(Box::new(move |panic| {
            if !IS_CAUGHT.get() {
                outer(panic);
            }
        }));
    });
    let before = IS_CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(before);
    result
}

/// `None` if the payload is not text.
pub(crate) fn panic_message(cause: &(dyn Any + Send)) -> Option<&str> {
    cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_value_and_the_next_call_works() {
        assert_eq!(catch_panic(|| 1).unwrap(), 1);
        let cause = catch_panic(|| [0][std::hint::black_box(7)]).unwrap_err();
        assert!(
            panic_message(cause.as_ref())
                .unwrap()
                .contains("index out of bounds")
        );
        let cause = catch_panic(|| panic!("as written")).unwrap_err();
        assert_eq!(panic_message(cause.as_ref()), Some("as written"));
        let cause = catch_panic(|| std::panic::panic_any(7)).unwrap_err();
        assert_eq!(panic_message(cause.as_ref()), None);
    }

    #[test]
    fn an_inner_call_leaves_the_outer_one_quiet() {
        let quiet_after = catch_panic(|| {
            assert!(catch_panic(|| [0][std::hint::black_box(7)]).is_err());
            IS_CAUGHT.get()
        });
        assert!(quiet_after.unwrap());
        assert!(!IS_CAUGHT.get());
    }

    #[test]
    fn only_this_thread_is_quiet() {
        let other = catch_panic(|| std::thread::spawn(|| IS_CAUGHT.get()).join().unwrap());
        assert!(!other.unwrap());
    }
}
