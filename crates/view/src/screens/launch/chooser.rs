//! Lists of base models and of tasks; an unlisted name can be typed.

use super::Launch;
use crate::popup::{Pick, PickEntry, Popup};
use crate::shared::{self, Shared};
use crate::style_role::Role;

pub(super) fn models(launch: &mut Launch, shared: &mut Shared) {
    let Some(context) = read(launch, shared, models) else {
        return;
    };
    let models = context.models.clone();
    let entry = |start: &super::context::Start| PickEntry {
        label: start.shown.clone(),
        beside: start.about.clone(),
        detail: format!("{}: {}", start.name, start.about),
        role: (!start.usable).then_some(Role::Faint),
        ..PickEntry::default()
    };
    let entries = models.iter().map(entry).collect();
    let set = |launch: &mut Launch, shared: &mut Shared, name: String| {
        super::set(launch, shared, "base_model", &name)
    };
    let pick = Pick::new(
        "Base model",
        entries,
        0,
        move |launch: &mut Launch, shared, index| match models.get(index) {
            Some(start) if start.usable => set(launch, shared, start.name.clone()),
            Some(start) => shared.complain(format!("{} {}", start.shown, start.about)),
            None => Vec::new(),
        },
    );
    shared.popup = Some(Popup::Pick(
        pick.or_typed("as typed: folder, Hugging Face name, or RUN@best", set),
    ));
}

pub(super) fn tasks(launch: &mut Launch, shared: &mut Shared) {
    let Some(context) = read(launch, shared, tasks) else {
        return;
    };
    let tasks = context.tasks.clone();
    let entry = |name: &String| PickEntry {
        label: name.clone(),
        ..PickEntry::default()
    };
    let entries = tasks.iter().map(entry).collect();
    let pick = Pick::new("Task", entries, 0, move |_: &mut Launch, shared, index| {
        shared::open_task(shared, tasks.get(index).cloned())
    });
    let open = |_: &mut Launch, shared: &mut Shared, name| shared::open_task(shared, Some(name));
    shared.popup = Some(Popup::Pick(
        pick.or_typed("as typed: task name or folder", open),
    ));
}

/// The data of the lists; a list opens once it is read, unless the user leaves until then.
fn read<'a>(
    launch: &'a mut Launch,
    shared: &mut Shared,
    list: fn(&mut Launch, &mut Shared),
) -> Option<&'a super::context::LaunchContext> {
    launch.in_forecast = false;
    launch.awaited = launch.context.is_none().then_some(list);
    if launch.awaited.is_some() {
        shared.warn("searching models and tasks ...; the list opens once they are found");
    }
    launch.context.as_ref()
}
