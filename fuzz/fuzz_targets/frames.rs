//! Framed output and its views: whatever comes, and however it is cut, the same is read or refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use millpond::service::output::view::{Form, View};

fuzz_target!(|bytes: &[u8]| {
    let Some((step, framed)) = bytes.split_first() else { return };
    for form in [Form::Raw, Form::Cri, Form::Json] {
        let whole = seen(form, framed, framed.len().max(1));
        assert_eq!(seen(form, framed, usize::from(*step).max(1)), whole);
    }
    // Here a piece of the input is a piece of the view: cuts show, and nothing else is promised.
    let _ = seen(Form::Docker, framed, usize::from(*step).max(1));
});

/// What a view shows of frames that come in pieces; `None` where they are no frames.
fn seen(form: Form, framed: &[u8], step: usize) -> Option<Vec<u8>> {
    let (mut view, mut out) = (View::new(form, None), Vec::new());
    for piece in framed.chunks(step) {
        view.take(piece, &mut out).ok()?;
    }
    view.finish(true, &mut out);
    Some(out)
}
