//! Event loop: handles all pending messages from keyboard, runs, background work and clock, then
//! draws at most one frame.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval_at, sleep_until};

use super::background;
use super::follow::FollowGuard;
use super::frame::FrameRenderer;
use super::frame_rate::{self, FrameScheduler};
use super::guard::{Terminal, TerminalMode};
use super::input::Input;
use super::linear::{self, LinePrinter};
use super::osc::NotifyThrottle;
use super::script::{Instruction, Script};
use super::signals::SignalEvent;
use super::writer::Writer;
use super::{guard, panic, signals};
use crate::app::Model;
use crate::appearance::Appearance;
use crate::drafts;
use crate::message::{Message, Senders};
use crate::options::Options;
use crate::subprocess;
use crate::update::{start, update};

const SECOND: Duration = Duration::from_secs(1);

/// Maximum events handled before a frame is drawn.
const MAX_EVENTS: usize = 2_000;

/// How long to wait for the last frame before handing over the terminal; `EXIT_TIMEOUT`: for the
/// whole exit.
pub(super) const LAST_FRAME: Duration = Duration::from_millis(500);
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long script lines wait for work started by a key.
const WORK_TIMEOUT: Duration = Duration::from_millis(400);

/// Exit code after a panic, as in Rust.
const BUG: u8 = 101;
/// Exit code for an invalid line of standard input.
const BAD_INPUT: u8 = 2;

/// How long to wait for the terminal's background colour.
const QUERY_TIMEOUT_LOCAL: Duration = Duration::from_millis(150);
const QUERY_TIMEOUT_REMOTE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct ViewExit {
    /// Exit code: 0, or 128 + the signal's number.
    pub code: u8,
    pub live: Vec<String>,
    /// Unsaved texts that could not be stored, and why.
    pub unsaved: Option<String>,
}

pub(super) enum LoopEvent {
    Message(Message),
    /// A line of a script on standard input; `None` at its end.
    Line(Option<String>),
    Signal(SignalEvent),
    Lost,
    Written,
    Edited(PathBuf, io::Result<ExitStatus>),
}

pub(super) enum UserInput {
    Keyboard(Input),
    Script(Script),
}

pub(super) enum Renderer {
    Frames(FrameRenderer),
    Lines(LinePrinter),
}

/// The model, and everything that its commands affect.
pub(super) struct View {
    pub(super) model: Model,
    pub(super) sender: UnboundedSender<LoopEvent>,
    receiver: UnboundedReceiver<LoopEvent>,
    pub(super) input: UserInput,
    pub(super) writer: Writer,
    pub(super) renderer: Renderer,
    pub(super) throttle: NotifyThrottle,
    pub(super) senders: Senders,
    pub(super) followed: HashMap<PathBuf, FollowGuard>,
    /// Control sequences to write between frames: clipboard, notifications.
    pub(super) sequences: Vec<u8>,
    /// Whether another program uses the terminal.
    pub(super) in_editor: bool,
    pub(super) continued: Option<Instant>,
    pub(super) exit_code: Option<u8>,
    /// Keys of background work started by the user or by the result of such work.
    pub(super) asked: HashSet<&'static str>,
    /// Whether the current message comes from the user or from such work.
    pub(super) is_asked: bool,
    /// Time of the user's last input.
    acted: Option<Instant>,
    scheduler: FrameScheduler,
    /// Total bytes written at each of the last seconds.
    written: VecDeque<u64>,
}

/// Runs the view until the user quits.
///
/// # Errors
/// There is no terminal, or threads cannot be started.
pub fn run(options: Options) -> io::Result<ViewExit> {
    panic::install(options.data.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let terminal = Terminal::enter(taken(&options))?;
    let mut view = View::start(options)?;
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(view.go())));
    let code = if ended.is_ok() {
        view.exit_code.unwrap_or(0)
    } else {
        BUG
    };
    view.senders.close();
    subprocess::end_children();
    // Unsaved text is stored however the view ends.
    let unsaved = store_drafts(&mut view.model);
    // A blocked terminal must not keep the process alive.
    std::thread::spawn(move || signals::end_after(EXIT_TIMEOUT, code));
    if code != signals::LOST {
        view.writer.finish(LAST_FRAME);
    }
    drop(terminal);
    Ok(ViewExit {
        code,
        live: view.live_runs(),
        unsaved,
    })
}

pub(super) fn taken(options: &Options) -> TerminalMode {
    if options.appearance.linear {
        TerminalMode::Keys
    } else {
        TerminalMode::Screen {
            mouse: options.mouse,
        }
    }
}

/// Stores every unsaved text; returns an error for texts that could not be stored.
fn store_drafts(model: &mut Model) -> Option<String> {
    let Model {
        shared,
        schema,
        prompts,
        ..
    } = model;
    let stored = [
        ("schema", drafts::store_now(schema, shared)),
        ("prompts", drafts::store_now(prompts, shared)),
    ];
    let unsaved = |(what, result): (&str, Result<(), String>)| {
        Some(format!("draft of the {what} not saved: {}", result.err()?))
    };
    stored
        .into_iter()
        .filter_map(unsaved)
        .reduce(|all, next| format!("{all}; {next}"))
}

impl View {
    fn start(mut options: Options) -> io::Result<Self> {
        let read = query_background(&mut options);
        let (sender, receiver) = unbounded_channel();
        let events = || sender.clone();
        let signal = events();
        signals::listen(move |event| signal.send(LoopEvent::Signal(event)).is_ok())?;
        let (lost, typed) = (events(), events());
        let input = if guard::has_keys() {
            signals::watch_terminal(move || _ = lost.send(LoopEvent::Lost))?;
            let typed = move |message| typed.send(LoopEvent::Message(message)).is_ok();
            UserInput::Keyboard(Input::start(read, typed)?)
        } else {
            UserInput::Script(Script::start(move |line| {
                typed.send(LoopEvent::Line(line)).is_ok()
            })?)
        };
        let written = events();
        let writer = Writer::start(io::stdout(), move || _ = written.send(LoopEvent::Written))?;
        let renderer = match options.appearance.linear {
            true => Renderer::Lines(LinePrinter::default()),
            false => Renderer::Frames(FrameRenderer::new()),
        };
        Ok(Self {
            model: Model::new(options),
            sender,
            receiver,
            input,
            writer,
            renderer,
            throttle: NotifyThrottle::default(),
            senders: Senders::default(),
            followed: HashMap::new(),
            sequences: Vec::new(),
            in_editor: false,
            continued: None,
            exit_code: None,
            asked: HashSet::new(),
            is_asked: true,
            acted: Some(Instant::now()),
            scheduler: FrameScheduler::default(),
            written: VecDeque::new(),
        })
    }

    async fn go(&mut self) {
        self.model.shared.size = match self.renderer {
            Renderer::Lines(_) => linear::SIZE,
            Renderer::Frames(_) => guard::size().unwrap_or((80, 24)),
        };
        self.model.shared.now_ms = now_ms();
        let commands = start(&mut self.model);
        self.carry_out(commands);
        self.scheduler.changed(true);
        let mut tick = interval_at(tokio::time::Instant::now() + SECOND, SECOND);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        while self.exit_code.is_none() {
            self.draw_if_due();
            if self.follow_script() {
                continue;
            }
            let due = self.due();
            let first = tokio::select! {
                biased;
                event = self.receiver.recv() => event,
                () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => None,
                _ = tick.tick() => Some(LoopEvent::Message(Message::Tick)),
            };
            let Some(first) = first else { continue };
            self.handle(first);
            for _ in 0..MAX_EVENTS {
                let Ok(next) = self.receiver.try_recv() else {
                    break;
                };
                self.handle(next);
            }
        }
    }

    /// When the next write is due; `None` if there is nothing to write or it cannot be shown now.
    fn due(&self) -> Option<Instant> {
        // While a frame is being written, the next one waits and then shows the newest state.
        let can = !self.in_editor && !self.writer.is_busy();
        let sequences = (!self.sequences.is_empty()).then(Instant::now);
        sequences.or_else(|| self.frame_due()).filter(|_| can)
    }

    fn frame_due(&self) -> Option<Instant> {
        let allowance = match () {
            () if self.is_linear() => frame_rate::LINEAR,
            () if self.model.shared.options.low_bandwidth => frame_rate::LOW_BANDWIDTH,
            () if self.model.shared.options.remote => frame_rate::REMOTE,
            () => frame_rate::LOCAL,
        };
        let now = Instant::now();
        let due = self.scheduler.due(now, allowance)?;
        // A screen is printed once it is complete.
        let is_incomplete =
            || self.is_loading() || self.asked.iter().any(|key| self.model.shared.is_busy(key));
        let complete = self
            .acted
            .filter(|_| self.is_linear() && is_incomplete())
            .map(|acted| acted + WORK_TIMEOUT);
        Some(complete.map_or(due, |complete| due.max(complete)))
    }

    fn draw_if_due(&mut self) {
        if self.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        let mut bytes = std::mem::take(&mut self.sequences);
        if self.frame_due().is_some_and(|due| due <= Instant::now()) {
            bytes.extend(self.frame());
            self.scheduler.drawn(Instant::now(), bytes.len());
        }
        self.writer.write(bytes);
    }

    fn frame(&mut self) -> Vec<u8> {
        match &mut self.renderer {
            Renderer::Frames(frames) => frames.draw(&self.model),
            Renderer::Lines(printer) => {
                let lines = printer.lines(&self.model).into_iter();
                lines
                    .flat_map(|line| (line + guard::line_end()).into_bytes())
                    .collect()
            }
        }
    }

    fn handle(&mut self, event: LoopEvent) {
        match event {
            LoopEvent::Message(message) => self.message(message),
            LoopEvent::Line(line) => {
                if let UserInput::Script(script) = &mut self.input {
                    script.add(line.as_deref());
                }
            }
            LoopEvent::Signal(event) => self.signal(event),
            LoopEvent::Lost => {
                guard::restore_now();
                self.exit_code = Some(signals::LOST);
            }
            LoopEvent::Written if self.writer.has_failed() => {
                guard::restore_now();
                self.exit_code = Some(signals::LOST);
            }
            LoopEvent::Written => {}
            LoopEvent::Edited(path, ended) => self.close_editor(path, ended),
        }
    }

    pub(super) fn message(&mut self, message: Message) {
        let by_user = matches!(
            message,
            Message::Key(_)
                | Message::Mouse(_)
                | Message::Paste(_)
                | Message::Perform(_)
                | Message::Resize(..)
                | Message::Edited(_)
        );
        let is_result =
            matches!(&message, Message::Work(result) if self.asked.contains(result.key));
        self.is_asked = by_user || is_result;
        if by_user {
            self.acted = Some(Instant::now());
        }
        let notices = self.model.shared.notices.total();
        if matches!(message, Message::Tick) {
            self.measure();
        }
        if let Message::Key(key) = &message {
            crate::files::panic_point("view.key", &key.code.to_string());
        }
        let commands = update(&mut self.model, now_ms(), message);
        self.scheduler.changed(by_user);
        if self.is_linear() && (is_result || self.model.shared.notices.total() > notices) {
            self.scheduler.is_effect(Instant::now());
        }
        self.carry_out(commands);
    }

    /// Executes the next script instruction once the effects of the last one are printed, and ends
    /// after the last. Returns false if there is nothing to do now.
    fn follow_script(&mut self) -> bool {
        let now = Instant::now();
        let is_settled = !self.model.shared.work.values().any(|work| work.busy)
            && !self.is_loading()
            && !self.writer.is_busy()
            && self.frame_due().is_none_or(|due| due > now + SECOND);
        let UserInput::Script(script) = &mut self.input else {
            return false;
        };
        match script.left.pop_front() {
            Some(Instruction::Wait(text)) if linear::shows(&self.model, &text) => {
                self.scheduler.changed(true)
            }
            Some(Instruction::Send(messages)) if is_settled => {
                messages
                    .into_iter()
                    .for_each(|message| self.message(message));
            }
            Some(Instruction::Fail(error)) if is_settled => {
                self.model.shared.complain(error);
                self.end(BAD_INPUT);
            }
            Some(instruction) => {
                script.left.push_front(instruction);
                return false;
            }
            None if script.has_ended && is_settled => self.end(0),
            None => return false,
        }
        true
    }

    fn is_loading(&self) -> bool {
        self.model
            .shared
            .current_run()
            .is_some_and(|run| !run.loaded && run.error.is_none())
    }

    fn end(&mut self, code: u8) {
        let bytes = self.frame();
        self.writer.write(bytes);
        self.exit_code = Some(code);
    }

    /// Updates the output rate in bytes per second, over the last five seconds.
    fn measure(&mut self) {
        self.written.push_back(self.writer.bytes());
        if self.written.len() > 6 {
            self.written.pop_front();
        }
        if let (Some(first), Some(last)) = (self.written.front(), self.written.back()) {
            self.model.shared.bytes_per_second =
                (last - first) / (self.written.len() as u64 - 1).max(1);
        }
    }

    pub(super) fn is_linear(&self) -> bool {
        matches!(self.renderer, Renderer::Lines(_))
    }

    pub(super) fn redraw(&mut self) {
        match &mut self.renderer {
            Renderer::Frames(frames) => frames.forget(),
            Renderer::Lines(printer) => printer.forget(),
        }
        self.scheduler.changed(true);
    }
}

/// Queries the terminal's background if the theme depends on it; returns the bytes read.
fn query_background(options: &mut Options) -> Vec<u8> {
    if !Appearance::needs_background_query(&options.appearance) {
        return Vec::new();
    }
    let (background, read) = background::query(if options.remote {
        QUERY_TIMEOUT_REMOTE
    } else {
        QUERY_TIMEOUT_LOCAL
    });
    if background.is_some() {
        options.appearance.background = background;
        options.theme = Appearance::load(&options.appearance).theme;
    }
    read
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| {
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
        })
}
