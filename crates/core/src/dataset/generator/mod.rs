//! Generates prompts from templates, pools and value formats: a row is a function of seed, set and
//! index.

mod specification;
mod template_functions;
mod templates;

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::{Environment, Value};
use serde_json::{Map, json};

use self::specification::{Amounts, Dates, EVERY_ANSWER, Specification, Style, WordShares};
use self::template_functions::{Draw, WordPools};
use super::random::{CounterRandom, GOLDEN, mix, scale};
use crate::dataset::error::DatasetError;
use crate::dataset::row::PromptRow;
use crate::task::TaskFiles;
use crate::text::Message;

/// A stream of rows: one of the three sets, or the endless one for pretraining. No two share a
/// composed word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    Train,
    Eval,
    Test,
    /// Unlimited; none of its rows is in a set.
    Pretrain,
}

impl Stream {
    /// Prefix of row ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Eval => "eval",
            Self::Test => "test",
            Self::Pretrain => "pretrain",
        }
    }
}

/// A row, its right completion, and a typical wrong one of an unaligned model.
#[derive(Clone, Debug)]
pub struct GeneratedRow {
    pub row: PromptRow,
    /// `layout/answer/amount format`, as far as the style names them.
    pub style: String,
    pub answer: String,
    /// Name and completion of the style's habit.
    pub habit_answer: Option<(String, String)>,
    /// Frequency of the habit, in `[0, 1]`.
    pub habit_frequency: f64,
}

/// A compiled `generator.toml`.
#[derive(Debug)]
pub struct Generator {
    label: String,
    specification: Specification,
    templates: Environment<'static>,
    lists: Arc<WordPools>,
    total_share: u64,
}

type Values = BTreeMap<String, Value>;

impl Generator {
    pub fn load(task: &TaskFiles) -> Result<Self, DatasetError> {
        let file = task
            .prompts
            .generator
            .as_deref()
            .ok_or(DatasetError::NoGenerator)?;
        let label = task.label(file);
        let bytes = task.read(file)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| DatasetError::Generator {
            label: label.clone(),
            problem: format!("not UTF-8 ({error}); save it as UTF-8"),
        })?;
        Self::parse(text, &label)
    }

    /// Compiles a generator; `label` names the file in errors.
    pub fn parse(toml_text: &str, label: &str) -> Result<Self, DatasetError> {
        let fail = |problem: String| DatasetError::Generator {
            label: label.to_owned(),
            problem,
        };
        let specification: Specification =
            toml::from_str(toml_text).map_err(|error| fail(error.to_string()))?;
        if let Some(problem) = specification.problem() {
            return Err(fail(problem));
        }
        let templates = templates::compile(&specification).map_err(fail)?;
        let lists = Arc::new(WordPools {
            pools: specification.pools.clone(),
            words: specification.words.clone(),
            word_shares: specification
                .word_shares
                .as_ref()
                .map_or([0; 4], WordShares::by_stream),
        });
        let total_share = specification
            .styles
            .iter()
            .map(|style| u64::from(style.share))
            .sum();
        Ok(Self {
            label: label.to_owned(),
            specification,
            templates,
            lists,
            total_share,
        })
    }

    /// Number of rows; `None` for the endless stream.
    pub fn rows(&self, stream: Stream) -> Option<u64> {
        let rows = &self.specification.rows;
        match stream {
            Stream::Train => Some(rows.train),
            Stream::Eval => Some(rows.eval),
            Stream::Test => Some(rows.test),
            Stream::Pretrain => None,
        }
    }

    /// Row `index` (from 0). Errors name the template that failed.
    pub fn row(&self, stream: Stream, index: u64) -> Result<GeneratedRow, DatasetError> {
        let random = self.random(stream, index);
        let style = self.style(stream, index);
        let mut values = self.values(stream, style, &random)?;
        let content = self.render("prompt", &values)?;
        let template = style
            .answer
            .as_ref()
            .map_or("answer".to_owned(), |name| format!("answers.{name}"));
        let answer = self.render(&template, &values)?;
        values.insert("answer".into(), answer.as_str().into());
        let habit_answer = match &style.habit {
            Some(habit) => Some((
                habit.clone(),
                self.render(&format!("habits.{habit}"), &values)?,
            )),
            None => None,
        };
        let named = std::iter::once(EVERY_ANSWER).chain(style.answer.as_deref());
        let tables = named.filter_map(|name| self.specification.row_fields.get_key_value(name));
        let fields =
            tables.flat_map(|(name, fields)| fields.keys().map(move |field| (name, field)));
        let mut own = Map::new();
        for (name, field) in fields {
            let template = format!("row_fields.{name}.{field}");
            own.insert(
                field.clone(),
                self.json_value(&template, &self.render(&template, &values)?)?,
            );
        }
        let expected = match (own.get("expected"), &self.specification.expected) {
            (Some(expected), _) => expected.clone(),
            (None, Some(_)) => self.json_value("expected", &self.render("expected", &values)?)?,
            (None, None) => self.json_value("answer", &answer)?,
        };
        let row = prompt_row(stream, index, style, content, expected, own);
        Ok(GeneratedRow {
            row,
            style: style.name(),
            answer,
            habit_answer,
            habit_frequency: style.frequency,
        })
    }

    /// Example `index` of the endless stream: a row and its right completion or, at the style's
    /// frequency, that of its habit.
    pub fn pretrain_example(&self, index: u64) -> Result<(PromptRow, String), DatasetError> {
        let generated = self.row(Stream::Pretrain, index)?;
        let spoilt =
            self.random(Stream::Pretrain, index).fork("habit").unit() < generated.habit_frequency;
        let completion = match generated.habit_answer {
            Some((_, text)) if spoilt => text,
            _ => generated.answer,
        };
        Ok((generated.row, completion))
    }

    fn random(&self, stream: Stream, index: u64) -> CounterRandom {
        CounterRandom::new(&[self.specification.seed, stream as u64, index])
    }

    /// Styles keep their shares in every stretch of rows: multiples of the golden ratio fill the
    /// unit interval evenly.
    fn style(&self, stream: Stream, index: u64) -> &Style {
        let start = mix(self.specification.seed ^ mix(stream as u64 + 1));
        let mut place = scale(
            start.wrapping_add(index.wrapping_mul(GOLDEN)),
            self.total_share,
        );
        let styles = &self.specification.styles;
        for style in styles {
            if place < u64::from(style.share) {
                return style;
            }
            place -= u64::from(style.share);
        }
        &styles[styles.len() - 1]
    }

    /// Template values: date and amount in all forms, fields, document.
    fn values(
        &self,
        stream: Stream,
        style: &Style,
        random: &CounterRandom,
    ) -> Result<Values, DatasetError> {
        let mut values = Values::new();
        if let Some(dates) = &self.specification.dates {
            values.append(&mut self.date(dates, random)?);
        }
        if let Some((amounts, format)) = self
            .specification
            .amounts
            .as_ref()
            .zip(style.amount.as_ref())
        {
            values.append(&mut self.amount(amounts, format, random)?);
        }
        let mut fields = Values::new();
        for (name, templates) in &self.specification.fields {
            let text = self.draw_from(
                &format!("fields.{name}"),
                templates.len(),
                stream,
                random,
                &mut values,
            )?;
            fields.insert(name.clone(), text.into());
        }
        values.append(&mut fields);
        let layouts = self.specification.layouts[&style.layout].len();
        let document = self.draw_from(
            &format!("layouts.{}", style.layout),
            layouts,
            stream,
            random,
            &mut values,
        )?;
        values.insert("document".into(), document.into());
        Ok(values)
    }

    /// Renders one of the `count` templates `name.0`, `name.1`, … with its own `draw`.
    fn draw_from(
        &self,
        name: &str,
        count: usize,
        stream: Stream,
        random: &CounterRandom,
        values: &mut Values,
    ) -> Result<String, DatasetError> {
        let mut random = random.fork(name);
        let template = format!("{name}.{}", random.below(count as u64));
        values.insert(
            "draw".into(),
            Draw::value(&self.lists, stream as usize, random),
        );
        let text = self.render(&template, values);
        values.remove("draw");
        text
    }

    fn date(&self, dates: &Dates, random: &CounterRandom) -> Result<Values, DatasetError> {
        let mut random = random.fork("date");
        let days = dates
            .first
            .until(dates.last)
            .map_or(0, |span| u64::from(span.get_days().unsigned_abs()))
            + 1;
        let later = jiff::Span::new().days(random.below(days) as i64);
        let date = dates.first.checked_add(later).unwrap_or(dates.first);
        let mut values = Values::from([
            ("iso_date".into(), date.to_string().into()),
            ("year".into(), format!("{:04}", date.year()).into()),
            ("month".into(), format!("{:02}", date.month()).into()),
            ("day".into(), format!("{:02}", date.day()).into()),
            ("day_plain".into(), date.day().into()),
            ("month_name".into(), date.strftime("%B").to_string().into()),
            ("month_short".into(), date.strftime("%b").to_string().into()),
        ]);
        let format = format!("dates.formats.{}", random.below(dates.formats.len() as u64));
        let text = self.render(&format, &values)?;
        values.insert("date".into(), text.into());
        Ok(values)
    }

    fn amount(
        &self,
        amounts: &Amounts,
        format: &str,
        random: &CounterRandom,
    ) -> Result<Values, DatasetError> {
        let currencies = &self.specification.currencies;
        let mut random = random.fork("amount");
        let digits = amounts.digits[random.below(amounts.digits.len() as u64) as usize];
        let low = 10_u64.pow(digits - 1);
        let whole = low + random.below(low * 9);
        let cents = format!("{:02}", random.below(100));
        let (code, symbol) = currencies
            .iter()
            .nth(random.below(currencies.len() as u64) as usize)
            .map_or(("", ""), |(c, s)| (c, s));
        let mut values = Values::from([
            ("decimal".into(), format!("{whole}.{cents}").into()),
            ("whole".into(), whole.into()),
            ("cents".into(), cents.into()),
            ("code".into(), code.into()),
            ("symbol".into(), symbol.into()),
        ]);
        let text = self.render(&format!("amounts.formats.{format}"), &values)?;
        values.insert("amount".into(), text.into());
        Ok(values)
    }

    fn json_value(&self, template: &str, text: &str) -> Result<serde_json::Value, DatasetError> {
        serde_json::from_str(text).map_err(|error| {
            let remedy = "a text needs `expected = '{{ answer | json }}'`";
            self.fail(format!("{template}: not JSON ({error}): {text}; {remedy}"))
        })
    }

    fn render(&self, template: &str, values: &Values) -> Result<String, DatasetError> {
        let render = || self.templates.get_template(template)?.render(values);
        render().map_err(|error| self.fail(format!("{template}: {error:#}")))
    }

    fn fail(&self, problem: String) -> DatasetError {
        DatasetError::Generator {
            label: self.label.clone(),
            problem,
        }
    }
}

fn prompt_row(
    stream: Stream,
    index: u64,
    style: &Style,
    content: String,
    expected: serde_json::Value,
    own: Map<String, serde_json::Value>,
) -> PromptRow {
    let id = format!("{}-{:03}", stream.name(), index + 1);
    let messages = vec![Message::new("user", content)];
    let tags = vec![style.tag.clone(), style.layout.clone()];
    let mut fields = Map::from_iter([
        ("id".to_owned(), json!(id)),
        ("messages".to_owned(), json!(messages)),
        ("expected".to_owned(), expected.clone()),
        ("tags".to_owned(), json!(tags)),
    ]);
    fields.extend(own);
    PromptRow {
        id,
        messages,
        expected: Some(expected),
        tags,
        fields: fields.into(),
        line: index as usize + 1,
    }
}
