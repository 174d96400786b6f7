//! The loop: messages from keyboard, runs, work and clock; all pending ones are handled, then at most one frame is
//! drawn.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval_at, sleep_until};

use super::background::{self, Answer};
use super::follow::Following;
use super::frame::FrameRenderer;
use super::frame_rate::{self, FrameScheduler};
use super::guard::Terminal;
use super::input::Input;
use super::osc::NotifyThrottle;
use super::signals::Asked;
use super::writer::Writer;
use super::{guard, panic, signals};
use crate::view::app::Model;
use crate::view::appearance::{self, Appearance};
use crate::view::drafts;
use crate::view::message::{Message, Senders};
use crate::view::options::Options;
use crate::view::subprocess;
use crate::view::update::{start, update};

const SECOND: Duration = Duration::from_secs(1);

/// So many messages are taken before a picture, however many there are.
const AT_ONCE: usize = 2_000;

/// How long the last picture may take on its way before the terminal is handed over, and how long all of leaving.
pub(super) const LAST_PICTURE: Duration = Duration::from_millis(500);
const LEAVING: Duration = Duration::from_secs(2);

/// The exit code after a bug, as Rust has it.
const BUG: u8 = 101;

/// How long the terminal may take to say its ground's colour.
const GROUND_LOCAL: Duration = Duration::from_millis(150);
const GROUND_REMOTE: Duration = Duration::from_secs(1);

/// How the view ended.
#[derive(Debug)]
pub struct ViewExit {
    /// For the process: 0, or 128 and the signal's number.
    pub code: u8,
    /// Ids of active runs.
    pub live: Vec<String>,
    /// Which unsaved text could not be kept, and why, as a sentence.
    pub unkept: Option<String>,
}

/// What the loop hears.
pub(super) enum LoopEvent {
    Message(Message),
    Signal(Asked),
    /// The terminal is gone.
    Lost,
    /// A picture has been written.
    Written,
    /// The user's editor has ended.
    Edited(PathBuf, io::Result<ExitStatus>),
    /// The user's files have changed.
    Looks(Box<Appearance>),
}

/// The model with everything that it acts on.
pub(super) struct View {
    pub(super) model: Model,
    pub(super) tell: UnboundedSender<LoopEvent>,
    told: UnboundedReceiver<LoopEvent>,
    pub(super) input: Input,
    pub(super) writer: Writer,
    pub(super) pictures: FrameRenderer,
    pub(super) bells: NotifyThrottle,
    pub(super) senders: Senders,
    pub(super) followed: HashMap<PathBuf, Following>,
    /// For the terminal besides pictures: copies, notifications.
    pub(super) besides: Vec<u8>,
    /// Another program has the terminal.
    pub(super) lent: bool,
    pub(super) continued: Option<Instant>,
    pub(super) leaving: Option<u8>,
    pace: FrameScheduler,
    /// All bytes written, a second each.
    written: VecDeque<u64>,
}

/// Runs the view until the user leaves.
///
/// # Errors
/// Where there is no terminal, or the system gives no threads.
pub fn run(options: Options) -> io::Result<ViewExit> {
    if !guard::is_there() {
        return Err(io::Error::other("standard input and output must be a terminal"));
    }
    panic::install(options.data.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let terminal = Terminal::take(options.mouse)?;
    let mut view = View::start(options)?;
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(view.go())));
    let code = if ended.is_ok() { view.leaving.unwrap_or(0) } else { BUG };
    view.senders.close();
    subprocess::end_children();
    // However it ends, what is unsaved is kept.
    let unkept = keep_now(&mut view.model);
    // A terminal that takes nothing more must not keep the process.
    std::thread::spawn(move || signals::end_after(LEAVING, code));
    if code != signals::LOST {
        view.writer.finish(LAST_PICTURE);
    }
    drop(terminal);
    Ok(ViewExit { code, live: view.live_runs(), unkept })
}

/// Keeps every unsaved text; a sentence of what could not be kept.
fn keep_now(model: &mut Model) -> Option<String> {
    let Model { shared, schema, prompts, .. } = model;
    let kept = [("schema", drafts::store_now(schema, shared)), ("prompts", drafts::store_now(prompts, shared))];
    let unkept =
        |(what, kept): (&str, Result<(), String>)| Some(format!("draft of the {what} not saved: {}", kept.err()?));
    kept.into_iter().filter_map(unkept).reduce(|all, next| format!("{all}; {next}"))
}

impl View {
    fn start(mut options: Options) -> io::Result<Self> {
        let late = look_at_ground(&mut options);
        let (tell, told) = unbounded_channel();
        let sender = || tell.clone();
        let lost = sender();
        signals::watch_terminal(move || _ = lost.send(LoopEvent::Lost))?;
        let asked = sender();
        signals::listen(move |signal| asked.send(LoopEvent::Signal(signal)).is_ok())?;
        let typed = sender();
        let input = Input::start(late, move |message| typed.send(LoopEvent::Message(message)).is_ok())?;
        let written = sender();
        let writer = Writer::start(io::stdout(), move || _ = written.send(LoopEvent::Written))?;
        let looks = sender();
        appearance::watch(options.appearance.clone(), move |looks_now| {
            looks.send(LoopEvent::Looks(Box::new(looks_now))).is_ok()
        })?;
        Ok(Self {
            model: Model::new(options),
            tell,
            told,
            input,
            writer,
            pictures: FrameRenderer::new(),
            bells: NotifyThrottle::default(),
            senders: Senders::default(),
            followed: HashMap::new(),
            besides: Vec::new(),
            lent: false,
            continued: None,
            leaving: None,
            pace: FrameScheduler::default(),
            written: VecDeque::new(),
        })
    }

    async fn go(&mut self) {
        self.model.shared.size = guard::size().unwrap_or((80, 24));
        self.model.shared.now_ms = now_ms();
        let commands = start(&mut self.model);
        self.carry_out(commands);
        self.pace.changed(true);
        let mut tick = interval_at(tokio::time::Instant::now() + SECOND, SECOND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while self.leaving.is_none() {
            self.draw_if_due();
            let due = self.due();
            let first = tokio::select! {
                biased;
                told = self.told.recv() => told,
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => None,
                _ = tick.tick() => Some(LoopEvent::Message(Message::Tick)),
            };
            let Some(first) = first else { continue };
            self.take(first);
            for _ in 0..AT_ONCE {
                let Ok(next) = self.told.try_recv() else { break };
                self.take(next);
            }
        }
    }

    /// When there is something to write next; `None` where there is nothing, or it could not be shown now.
    fn due(&self) -> Option<Instant> {
        // While the last picture is on its way the next one waits, and is then of the newest state.
        let can = !self.lent && !self.writer.is_busy();
        let besides = (!self.besides.is_empty()).then(Instant::now);
        besides.or_else(|| self.picture_due()).filter(|_| can)
    }

    fn picture_due(&self) -> Option<Instant> {
        let allowance = match () {
            () if self.model.shared.options.low_bandwidth => frame_rate::LOW_BANDWIDTH,
            () if self.model.shared.options.remote => frame_rate::REMOTE,
            () => frame_rate::LOCAL,
        };
        self.pace.due(Instant::now(), allowance)
    }

    fn draw_if_due(&mut self) {
        if self.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        let mut bytes = std::mem::take(&mut self.besides);
        if self.picture_due().is_some_and(|due| due <= Instant::now()) {
            bytes.extend(self.pictures.draw(&self.model));
            self.pace.drawn(Instant::now(), bytes.len());
        }
        self.writer.write(bytes);
    }

    fn take(&mut self, told: LoopEvent) {
        match told {
            LoopEvent::Message(message) => self.message(message),
            LoopEvent::Signal(asked) => self.signal(asked),
            LoopEvent::Lost => {
                guard::restore_now();
                self.leaving = Some(signals::LOST);
            }
            LoopEvent::Written if self.writer.has_failed() => {
                guard::restore_now();
                self.leaving = Some(signals::LOST);
            }
            LoopEvent::Written => {}
            LoopEvent::Edited(path, ended) => self.take_back(path, ended),
            LoopEvent::Looks(looks) => {
                self.besides.extend_from_slice(guard::mouse(looks.mouse).as_bytes());
                looks.apply(&mut self.model);
                self.pace.changed(true);
            }
        }
    }

    pub(super) fn message(&mut self, message: Message) {
        let by_user = matches!(
            message,
            Message::Key(_) | Message::Mouse(_) | Message::Paste(_) | Message::Resize(..) | Message::Edited(_)
        );
        if matches!(message, Message::Tick) {
            self.measure();
        }
        if let Message::Key(key) = &message {
            crate::files::panic_point("view.key", &key.code.to_string());
        }
        let commands = update(&mut self.model, now_ms(), message);
        self.pace.changed(by_user);
        self.carry_out(commands);
    }

    /// Bytes a second to the terminal, over the last five.
    fn measure(&mut self) {
        self.written.push_back(self.writer.bytes());
        if self.written.len() > 6 {
            self.written.pop_front();
        }
        if let (Some(first), Some(last)) = (self.written.front(), self.written.back()) {
            self.model.shared.bytes_per_second = (last - first) / (self.written.len() as u64 - 1).max(1);
        }
    }

    /// The next picture is drawn whole.
    pub(super) fn redraw(&mut self) {
        self.pictures.forget();
        self.pace.changed(true);
    }
}

/// Asks the terminal for its ground where the theme hangs on it; true where the answer may still come.
fn look_at_ground(options: &mut Options) -> bool {
    if !Appearance::asks_for_ground(&options.appearance) {
        return false;
    }
    let said = background::ask(if options.remote { GROUND_REMOTE } else { GROUND_LOCAL });
    if let Answer::Ground(ground) = said {
        options.appearance.ground = Some(ground);
        options.theme = Appearance::load(&options.appearance).theme;
    }
    said == Answer::NotYet
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
