//! What the server makes of a prompt: token ids or their number, compared with the run's.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::asker::{Asker, Request};
use super::facts::{Facts, IdFacts};
use super::replies::{Told, token_ids};
use super::{ProvePrompt, Reference};
use crate::api_client::ProbePath;
use crate::format::counted;
use crate::run::ServingFault;

pub(super) const KWARGS: &str = "chat_template_kwargs";
/// Text of several scripts, in which tokenizers differ.
const SAMPLE: &str = "Invoice 12.50 EUR, naïve résumé 東京 {\"a\": [1, 2]}\n  x_1";

/// How a server tells ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Channel {
    Tokenize,
    ApplyTemplate,
}

impl Channel {
    fn name(self) -> &'static str {
        match self {
            Self::Tokenize => "/tokenize",
            Self::ApplyTemplate => "/apply-template and /tokenize",
        }
    }
}

pub(super) fn measure(reference: &Reference<'_>, asker: &Asker<'_>, facts: &mut Facts) {
    let all = reference.prompts;
    let Some(first) = all.first() else { return };
    let sent = first.body.get(KWARGS).cloned();
    let (first, others) = all.split_at(1);
    let found = [Channel::Tokenize, Channel::ApplyTemplate]
        .into_iter()
        .map(|channel| (channel, rendered(asker, channel, first, sent.as_ref())))
        .find(|(_, told)| told[0].is_ok());
    let Some((channel, mut as_sent)) = found else {
        facts.ids =
            Err("the server has neither /tokenize with messages nor /apply-template".into());
        return;
    };
    as_sent.extend(rendered(asker, channel, others, sent.as_ref()));
    let mut found = compared(all, &as_sent, channel.name());
    if let Some((fault @ ServingFault::Template, _)) = &mut found.fault
        && has_other_tokenizer(reference, asker)
    {
        *fault = ServingFault::Tokenizer;
    }
    let kwargs = Value::Object(reference.kwargs.clone());
    if found.fault.is_some() && !reference.kwargs.is_empty() && sent.as_ref() != Some(&kwargs) {
        let own = rendered(asker, channel, all, Some(&kwargs));
        facts.ids_with_kwargs = Some(compared(all, &own, channel.name()));
    }
    facts.ids = Ok(found);
}

fn rendered(
    asker: &Asker<'_>,
    channel: Channel,
    prompts: &[ProvePrompt],
    kwargs: Option<&Value>,
) -> Vec<Result<Told, String>> {
    let what = "prompt ids";
    let request = |path, body: Map<String, Value>| Request {
        path,
        body: Value::Object(body),
    };
    let fields = |prompt: &ProvePrompt| {
        let own = prompt.body.iter();
        let own = own.filter(|(name, _)| ["model", "messages", "tools"].contains(&name.as_str()));
        let mut body: Map<String, Value> = own
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        body.insert("add_generation_prompt".to_owned(), true.into());
        body.extend(kwargs.map(|kwargs| (KWARGS.to_owned(), kwargs.clone())));
        body
    };
    let ids = |answer: Result<Value, String>| {
        token_ids(&answer?["tokens"])
            .map(Told::Ids)
            .ok_or_else(|| "no `tokens`".to_owned())
    };
    let all = |path, bodies: Vec<Map<String, Value>>| {
        let requests = bodies.into_iter().map(|body| request(path, body)).collect();
        asker.all(what, 8, requests)
    };
    let bodies = prompts.iter().map(fields).collect();
    if channel == Channel::Tokenize {
        return all(ProbePath::Tokenize, bodies)
            .into_iter()
            .map(ids)
            .collect();
    }
    let texts = all(ProbePath::ApplyTemplate, bodies);
    let texts: Vec<Result<String, String>> = texts
        .into_iter()
        .map(|answer| {
            answer?["prompt"]
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| "no `prompt`".to_owned())
        })
        .collect();
    let known = texts.iter().flatten();
    let bodies = known.map(|text| {
        let body = json!({"content": text, "add_special": true, "parse_special": true});
        body.as_object().cloned().unwrap_or_default()
    });
    let mut found = all(ProbePath::Tokenize, bodies.collect()).into_iter();
    let next = |text: Result<String, String>| {
        text.and_then(|_| {
            found
                .next()
                .map_or_else(|| Err("not asked".to_owned()), ids)
        })
    };
    texts.into_iter().map(next).collect()
}

/// Whether a plain text has other ids there.
fn has_other_tokenizer(reference: &Reference<'_>, asker: &Asker<'_>) -> bool {
    let model = &reference.endpoint.model;
    // In vLLM's and our form, then in llama.cpp's; each may refuse the other's fields.
    let bodies = [
        json!({"model": model, "prompt": SAMPLE, "add_special_tokens": false}),
        json!({"content": SAMPLE, "add_special": false}),
    ];
    let told = bodies.into_iter().find_map(|body| {
        token_ids(
            &asker
                .one("a plain text's ids", ProbePath::Tokenize, body)
                .ok()?["tokens"],
        )
    });
    let own = reference.tokenizer.encode(SAMPLE);
    told.zip(own.ok()).is_some_and(|(told, own)| told != own)
}

/// Compares what was told with the run's ids.
pub(super) fn compared(
    prompts: &[ProvePrompt],
    told: &[Result<Told, String>],
    channel: &'static str,
) -> IdFacts {
    let mut found = IdFacts {
        channel,
        ..IdFacts::default()
    };
    let counts = || {
        told.iter().flatten().map(|told| match told {
            Told::Ids(ids) => ids.len(),
            Told::Count(count) => *count,
        })
    };
    // Truncation ends all longer prompts at one length.
    let longest = counts().max().unwrap_or(0);
    let at_longest = counts().filter(|count| *count == longest).count();
    let mut faults: BTreeMap<ServingFault, (usize, String)> = BTreeMap::new();
    for (prompt, told) in prompts.iter().zip(told) {
        let Ok(told) = told else { continue };
        found.compared += 1;
        let Some(fault) = fault_of(prompt, told, (longest, at_longest)) else {
            continue;
        };
        found.differ += 1;
        let shown = || {
            format!(
                "`{}`: {}",
                prompt.row.id,
                difference(&prompt.token_ids, told)
            )
        };
        faults.entry(fault).or_insert_with(|| (0, shown())).0 += 1;
    }
    let most = faults.into_iter().max_by_key(|(_, (count, _))| *count);
    found.fault = most.map(|(fault, (_, example))| (fault, example));
    found
}

fn fault_of(
    prompt: &ProvePrompt,
    told: &Told,
    (longest, at_longest): (usize, usize),
) -> Option<ServingFault> {
    let own = prompt.token_ids.as_slice();
    match told {
        Told::Ids(ids) => match ids.as_slice() {
            ids if ids == own => None,
            ids if is_truncation(own, ids) => Some(ServingFault::Context),
            _ => Some(ServingFault::Template),
        },
        Told::Count(count) => match *count {
            count if count == own.len() => None,
            count if count < own.len() && count == longest && at_longest > 1 => {
                Some(ServingFault::Context)
            }
            _ => Some(ServingFault::Template),
        },
    }
}

/// Whether ids are left out at the start, at the end or within.
fn is_truncation(own: &[u32], ids: &[u32]) -> bool {
    if ids.len() >= own.len() {
        return false;
    }
    let start = own.iter().zip(ids).take_while(|(a, b)| a == b).count();
    let end = own
        .iter()
        .rev()
        .zip(ids.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    // A template without a system text leaves some out as well: only much of a long prompt is a context's limit.
    start + end >= ids.len() && own.len() >= 512
}

fn difference(own: &[u32], told: &Told) -> String {
    match told {
        Told::Count(count) => format!(
            "{} there, {} in the run",
            counted(*count, "prompt token"),
            own.len()
        ),
        Told::Ids(ids) => {
            let at = own.iter().zip(ids).take_while(|(a, b)| a == b).count();
            let id = |ids: &[u32]| {
                ids.get(at)
                    .map_or_else(|| "none".to_owned(), u32::to_string)
            };
            format!(
                "token {at} is {} there, {} in the run ({} and {} tokens)",
                id(ids),
                id(own),
                ids.len(),
                own.len()
            )
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dataset::load_from;

    fn prompt(token_ids: Vec<u32>) -> ProvePrompt {
        ProvePrompt {
            row: load_from(
                "rows",
                &br#"{"id": "a", "messages": [{"role": "user", "content": "x"}]}"#[..],
            )
            .unwrap()
            .remove(0),
            body: Map::new(),
            response_format: None,
            token_ids,
            answer: None,
        }
    }

    #[test]
    fn ids_of_a_prompt_name_what_was_done_to_it() {
        let own = vec![1, 5, 6, 7];
        let asked = prompt(own);
        for (told, expected) in [
            (vec![1, 5, 6, 7], None),
            (vec![1, 1, 5, 6, 7], Some(ServingFault::Template)),
            (vec![5, 6, 7], Some(ServingFault::Template)),
            (vec![1, 9, 5, 6, 7], Some(ServingFault::Template)),
            (vec![1, 6, 7], Some(ServingFault::Template)),
        ] {
            let count = Told::Count(told.len());
            assert_eq!(fault_of(&asked, &Told::Ids(told), (0, 0)), expected);
            // Without ids only the number is known.
            let by_count = fault_of(&asked, &count, (0, 0));
            assert_eq!(by_count.is_none(), expected.is_none(), "{count:?}");
        }
        let long = || prompt((0..600).collect());
        let cut = Told::Ids((0..20).chain(120..600).collect());
        assert_eq!(fault_of(&long(), &cut, (0, 0)), Some(ServingFault::Context));
        let all = [long(), asked, long()];
        let told = [
            Ok(Told::Count(512)),
            Ok(Told::Count(4)),
            Ok(Told::Count(512)),
        ];
        let found = compared(&all, &told, "usage");
        assert_eq!((found.compared, found.differ), (3, 2));
        assert_eq!(
            found.fault.map(|(fault, _)| fault),
            Some(ServingFault::Context)
        );
        let none = compared(
            &all,
            &[Err("x".into()), Err("x".into()), Err("x".into())],
            "usage",
        );
        assert_eq!((none.compared, none.fault), (0, None));
    }
}
