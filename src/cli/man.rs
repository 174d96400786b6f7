//! `grpo-tui man`: the manual page, with every subcommand's options and the table of actions.

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::Outcome;
use super::output::print_exact;

pub(super) fn run() -> Outcome {
    print_exact(&String::from_utf8_lossy(&page()?))
}

fn page() -> std::io::Result<Vec<u8>> {
    let mut command = super::Arguments::command();
    command.build();
    let mut page = Vec::new();
    let man = Man::new(command.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    subcommands(&command)?.to_writer(&mut page)?;
    exit_codes().to_writer(&mut page)?;
    #[cfg(feature = "view")]
    {
        actions().to_writer(&mut page)?;
        files().to_writer(&mut page)?;
    }
    man.render_version_section(&mut page)?;
    Ok(page)
}

fn subcommands(command: &clap::Command) -> std::io::Result<Roff> {
    let mut roff = Roff::new();
    roff.control("SH", ["SUBCOMMANDS"]);
    for subcommand in command
        .get_subcommands()
        .filter(|subcommand| !subcommand.is_hide_set() && subcommand.get_name() != "help")
    {
        roff.control("SS", [subcommand.get_name()]);
        let about = subcommand
            .get_about()
            .map(ToString::to_string)
            .unwrap_or_default();
        roff.text([roman(format!("{about}. See "))]);
        roff.text([
            bold(format!("grpo-tui {} --help", subcommand.get_name())),
            roman("."),
        ]);
        for nested in subcommand
            .get_subcommands()
            .filter(|nested| !nested.is_hide_set() && nested.get_name() != "help")
        {
            roff.control("TP", []);
            roff.text([bold(format!(
                "{} {}",
                subcommand.get_name(),
                nested.get_name()
            ))]);
            roff.text([roman(
                nested
                    .get_about()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            )]);
        }
    }
    Ok(roff)
}

fn exit_codes() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in super::EXIT_CODES {
        roff.control("TP", []);
        roff.text([bold(code)]);
        roff.text([roman(meaning)]);
    }
    roff
}

#[cfg(feature = "view")]
fn actions() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["KEYS OF THE WORKBENCH"]);
    roff.text([
        roman("Default keys. A keymap file changes them; "),
        bold("grpo-tui keys"),
        roman(" shows those in effect."),
    ]);
    let mut last = None;
    for action in crate::view::app::actions() {
        let place = super::keys::scope_text(action.scope);
        if last.as_ref() != Some(&place) {
            roff.control("SS", [place.as_str()]);
            last = Some(place);
        }
        let keys = if action.keys.is_empty() {
            "(no key)".to_owned()
        } else {
            action.keys.join(", ")
        };
        roff.control("TP", []);
        roff.text([bold(keys)]);
        roff.text([roman(format!("{} ({})", action.title, action.id))]);
    }
    roff
}

#[cfg(feature = "view")]
fn files() -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["FILES"]);
    for (file, is) in [
        (
            "~/.config/grpo-tui/config.toml",
            "theme, colours, letters, bandwidth, notifications, mouse, GPU price",
        ),
        (
            "~/.config/grpo-tui/keys.toml",
            "other keys for actions, such as \"help\" = [\"f12\"]",
        ),
        ("~/.config/grpo-tui/themes/NAME.toml", "themes"),
    ] {
        roff.control("TP", []);
        roff.text([bold(file)]);
        roff.text([roman(is)]);
    }
    roff
}
