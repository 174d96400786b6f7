//! A recorded comparison under a schema that was edited since: both sides are re-scored under the edited one, and back.

use super::{User, recorded_run, workspace};

#[test]
fn a_comparison_across_a_schema_edit() {
    let home = workspace();
    recorded_run(home.path(), "edited");
    let mut user = User::at(home, (120, 36));
    user.sees(["[1 Runs]", "edited"])
        .presses("enter")
        .sees(["[6 Live]", "result: finished"]);
    user.presses("V").sees([
        "[7 Eval]",
        "as recorded",
        "valid: +39.0 points (95% CI",
        "+38.0 points (95% CI",
    ]);
    // A bound that no answer satisfies; the schema is not saved.
    user.presses("2").sees(["sample scores"]);
    user.presses("enter down*6 end left*3")
        .types(", \"maximum\": 0")
        .sees(["(unsaved)"]);
    user.presses("esc").no_longer_sees("esc leaves");
    user.presses("7").sees(["as recorded"]).presses("r");
    user.sees([
        "re-scored by schema",
        "valid: no difference",
        "p = 1), exact:",
        "neither 100",
    ]);
    user.presses("r")
        .no_longer_sees("re-scored")
        .sees(["as recorded", "valid: +39.0 points (95% CI"]);
    user.presses("2")
        .sees(["(unsaved)"])
        .presses("V y")
        .no_longer_sees("(unsaved)");
    user.quits();
}
