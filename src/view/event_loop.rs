//! The loop: messages from keyboard, runs, work and clock; all that are there are taken, then one picture is drawn.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ratatui::backend::CrosstermBackend;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::draw::draw;
use super::follow::Following;
use super::message::{Command, Message, Outlet, Work, Worked};
use super::model::Model;
use super::options::Options;
use super::terminal::Terminal;
use super::update::update;

const SECOND: Duration = Duration::from_secs(1);

/// Runs the view until the user leaves.
///
/// # Errors
/// Where there is no terminal, or it cannot be written to.
pub fn run(options: Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().enable_io().build()?;
    runtime.block_on(work(options))
}

async fn work(options: Options) -> io::Result<()> {
    let _terminal = Terminal::take()?;
    let mut screen = ratatui::Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let (tell, mut told) = unbounded_channel();
    read_keys(tell.clone());
    let mut world = World { tell, following: HashMap::new() };
    let mut model = Model::new(options);
    let (columns, rows) = crossterm::terminal::size()?;
    model.size = (columns, rows);
    model.now_ms = now_ms();
    let commands = super::start(&mut model);
    if !world.carry_out(commands) {
        return Ok(());
    }
    let mut tick = tokio::time::interval(SECOND);
    loop {
        screen.draw(|frame| draw(&model, frame))?;
        let first = tokio::select! {
            biased;
            message = told.recv() => message.unwrap_or(Message::Quit),
            _ = tick.tick() => Message::Tick,
        };
        let mut next = Some(first);
        while let Some(message) = next {
            let commands = update(&mut model, now_ms(), message);
            if !world.carry_out(commands) {
                return Ok(());
            }
            next = take(&mut told);
        }
    }
}

fn take(told: &mut UnboundedReceiver<Message>) -> Option<Message> {
    told.try_recv().ok()
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Keys are read on a thread of their own, so that nothing else waits for them.
fn read_keys(tell: UnboundedSender<Message>) {
    use crossterm::event::{Event, read};
    std::thread::spawn(move || {
        while let Ok(event) = read() {
            let message = match event {
                Event::Key(key) => Message::Key(key),
                Event::Mouse(mouse) => Message::Mouse(mouse),
                Event::Paste(text) => Message::Paste(text),
                Event::Resize(columns, rows) => Message::Resize(columns, rows),
                Event::FocusGained | Event::FocusLost => continue,
            };
            if tell.send(message).is_err() {
                return;
            }
        }
    });
}

/// What commands act on.
struct World {
    tell: UnboundedSender<Message>,
    following: HashMap<PathBuf, Following>,
}

impl World {
    /// Does what the view asks; false when it wants to leave.
    fn carry_out(&mut self, commands: Vec<Command>) -> bool {
        for command in commands {
            match command {
                Command::Quit => return false,
                Command::Work(work) => self.begin(work),
                Command::Watch(run) => {
                    let (tell, path) = (self.tell.clone(), run.clone());
                    let following = Following::start(run.clone(), move |news| _ = tell.send(Message::Run(path.clone(), news)));
                    self.following.insert(run, following);
                }
                Command::Unwatch(run) => _ = self.following.remove(&run),
                Command::Suspend | Command::Copy(_) | Command::Notify { .. } | Command::Edit { .. } | Command::Redraw => {}
            }
        }
        true
    }

    fn begin(&self, work: Work) {
        let (key, generation, job) = (work.key, work.generation, work.job);
        let (tell, done) = (self.tell.clone(), self.tell.clone());
        let outlet = Outlet::new(move |apply| tell.send(Message::Worked(Worked { key, generation, apply: Some(apply) })).is_ok());
        std::thread::spawn(move || {
            job(&outlet);
            _ = done.send(Message::Worked(Worked { key, generation, apply: None }));
        });
    }
}
