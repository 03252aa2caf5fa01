//! Whether a hook that is attached sees anything: a function that the compiler has copied into its callers can be hooked
//! and is never called.
//!
//! A hook is healthy when it counts while another one counts that cannot be passed without it, not when it is attached.

use netsonde_framework::{HookState, HookStatus};

/// Two hooks of a probe, by their names and their places in the map HITS: what passes `other` has passed `hook`.
#[derive(Debug, Clone, Copy)]
pub struct Sibling {
    /// The hook that may be blind.
    pub hook: &'static str,
    /// Its place in HITS.
    pub at: u32,
    /// The one that tells.
    pub other: &'static str,
    /// Its place in HITS.
    pub other_at: u32,
    /// How often `other` must have been passed before `hook` is called blind.
    pub after: u64,
}

/// A rule and how its hook was attached before it was found to be blind.
#[derive(Debug)]
pub(super) struct Watched {
    rule: Sibling,
    rung: Option<&'static str>,
}

impl Watched {
    pub(super) fn new(rule: Sibling) -> Self {
        Self { rule, rung: None }
    }

    pub(super) fn rule(&self) -> Sibling {
        self.rule
    }

    /// Gives the hook its verdict from how often both were passed. One that sees something after all is attached again.
    pub(super) fn judge(&mut self, hooks: &mut [HookStatus], hits: u64, of_other: u64) {
        let is_on = |name| {
            hooks.iter().any(|h: &HookStatus| h.name == name && matches!(h.state, HookState::Attached(_)))
        };
        let other_is_on = is_on(self.rule.other);
        let Some(hook) = hooks.iter_mut().find(|h| h.name == self.rule.hook) else { return };
        match (&hook.state, self.rung) {
            (HookState::Attached(rung), _) if hits == 0 && other_is_on && of_other >= self.rule.after => {
                self.rung = Some(rung);
                hook.state = HookState::Silent(format!(
                    "attached by {rung}, but it saw nothing while {} saw {of_other}",
                    self.rule.other
                ));
            }
            (HookState::Silent(_), Some(rung)) if hits > 0 => hook.state = HookState::Attached(rung),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Sibling = Sibling { hook: "a", at: 0, other: "b", other_at: 1, after: 1000 };

    fn hooks(b: HookState) -> [HookStatus; 2] {
        let status = HookStatus::new;
        [status("a", HookState::Attached("fentry")), status("b", b)]
    }

    #[test]
    fn a_hook_that_sees_nothing_while_the_other_one_counts_is_silent() {
        let mut watched = Watched::new(RULE);
        let mut hooks = hooks(HookState::Attached("tp_btf"));
        watched.judge(&mut hooks, 0, 999);
        assert_eq!(hooks[0].state, HookState::Attached("fentry"), "too early to tell");
        watched.judge(&mut hooks, 0, 1000);
        let HookState::Silent(why) = &hooks[0].state else { panic!("{hooks:?}") };
        assert_eq!(why, "attached by fentry, but it saw nothing while b saw 1000");
        watched.judge(&mut hooks, 0, 5000);
        assert!(matches!(hooks[0].state, HookState::Silent(_)));
        watched.judge(&mut hooks, 1, 5001);
        assert_eq!(hooks[0].state, HookState::Attached("fentry"), "it does see something");
    }

    #[test]
    fn a_hook_that_has_seen_anything_is_not_silent() {
        let mut watched = Watched::new(RULE);
        let mut hooks = hooks(HookState::Attached("tp_btf"));
        watched.judge(&mut hooks, 1, 1_000_000);
        assert_eq!(hooks[0].state, HookState::Attached("fentry"));
    }

    #[test]
    fn a_hook_that_is_not_attached_keeps_its_verdict_and_tells_nothing_of_another() {
        let mut watched = Watched::new(RULE);
        let gone = HookState::Unsupported("this kernel has no kprobes".into());
        let mut without_other = hooks(gone.clone());
        watched.judge(&mut without_other, 0, 1_000_000);
        assert_eq!(without_other[0].state, HookState::Attached("fentry"));
        let mut without_own = [HookStatus::new("a", gone.clone()), without_other[1].clone()];
        without_own[1].state = HookState::Attached("tp_btf");
        watched.judge(&mut without_own, 0, 1_000_000);
        assert_eq!(without_own[0].state, gone);
    }
}
