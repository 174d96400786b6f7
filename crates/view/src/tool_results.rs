//! Long results of tools, clipped or whole: one switch for all screens that show conversations.

use super::action::Scope;
use super::screen::Action;
use super::screens::Screen;
use super::shared::Shared;

pub const fn whole_action<X>(id: &'static str, screen: Screen) -> Action<X> {
    Action::new(
        id,
        "Toggle whole results",
        "",
        &["W"],
        Scope::Screen(screen),
        |_: &mut X, shared: &mut Shared| {
            shared.whole_results = !shared.whole_results;
            shared.say(match shared.whole_results {
                true => "results of tools: up to 64 KiB each",
                false => "results of tools: the first lines",
            })
        },
    )
    .also(&["tool results", "expand", "collapse", "full result"])
}
