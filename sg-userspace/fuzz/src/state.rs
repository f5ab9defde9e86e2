//! Any bytes as the state file or the policy's: refused, or read, kept and compiled without a panic.

use sg_userspace::{
    compile::compile,
    state::{Policy, State},
};

/// Reads the input as JSON.
pub fn run(input: &[u8]) {
    if let Ok(policy) = serde_json::from_slice::<Policy>(input) {
        let text = serde_json::to_string(&policy).expect("a policy is data");
        let again: Policy = serde_json::from_str(&text).expect("what was written can be read");
        assert_eq!(again.resolved, policy.resolved);
        let _ = compile(&policy.resolved);
    }
    let Ok(mut state) = serde_json::from_slice::<State>(input) else {
        return;
    };
    let text = serde_json::to_string(&state).expect("state is data");
    let again: State = serde_json::from_str(&text).expect("what was written can be read");
    assert_eq!(serde_json::to_string(&again).expect("state is data"), text);
    for one in &state.interfaces {
        let found = state.find(&one.name, None).expect("it is there");
        assert_eq!(found.name, one.name);
    }
    let number = state.give_namespace();
    assert!(state.namespace(number).is_none());
    let _ = state.give_id::<sg_userspace::state::StateError>(|_| Ok(true));
}
