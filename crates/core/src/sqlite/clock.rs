//! A fixed clock: SQLite asks its VFS for the time, so a VFS with a constant time fixes `'now'`,
//! `CURRENT_TIMESTAMP` and the like in queries, defaults, views and triggers.

use std::ffi::{CString, c_int, c_void};
use std::sync::Once;

use rusqlite::{Connection, OpenFlags, ffi};

/// Milliseconds since noon of -4713-11-24, as SQLite counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock(i64);

impl Default for Clock {
    /// 2024-01-01 00:00:00.
    fn default() -> Self {
        Self(212_570_827_200_000)
    }
}

impl Clock {
    /// Parses a date with an optional time of day, in UTC.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let date = text.get(..10)?;
        let connection = Connection::open_in_memory().ok()?;
        let read = "SELECT CAST(round(julianday(?1) * 86400000) AS INTEGER) WHERE date(?1) = ?2";
        connection
            .query_row(read, [text, date], |row| row.get(0).map(Self))
            .ok()
    }
}

/// SQLite's default VFS with a fixed time.
#[repr(C)]
struct FixedVfs {
    /// First member, so that its address is that of the struct.
    vfs: ffi::sqlite3_vfs,
    now: Clock,
    name: CString,
}

/// Must outlive its connection.
#[derive(Debug)]
pub(super) struct ClockVfs(*mut FixedVfs);

// SAFETY: it is read by its connection alone, which one thread uses at a time.
unsafe impl Send for ClockVfs {}

impl Drop for ClockVfs {
    fn drop(&mut self) {
        // SAFETY: the pointer is of `Box::into_raw`, and the connection that used it is closed.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

pub(super) fn open(now: Clock) -> rusqlite::Result<(Connection, ClockVfs)> {
    static UTC: Once = Once::new();
    UTC.call_once(|| {
        let local_time: unsafe extern "C" fn(*const c_void, *mut c_void) -> c_int = utc;
        // SAFETY: 2 takes the function that answers for `localtime`, with this signature.
        unsafe { ffi::sqlite3_test_control(ffi::SQLITE_TESTCTRL_LOCALTIME_FAULT, 2, local_time) };
    });
    // SAFETY: SQLite is initialized by the first connection, or here.
    let own = unsafe {
        ffi::sqlite3_initialize();
        ffi::sqlite3_vfs_find(std::ptr::null())
    };
    // SAFETY: the default VFS is static.
    let Some(own) = (unsafe { own.as_ref() }) else {
        return Err(rusqlite::Error::InvalidQuery);
    };
    let clock = Box::into_raw(Box::new(FixedVfs {
        vfs: *own,
        now,
        name: CString::default(),
    }));
    let clock = ClockVfs(clock);
    let name = format!("clock-{:p}", clock.0);
    // SAFETY: nobody else has the pointer yet.
    let fixed = unsafe { &mut *clock.0 };
    fixed.name = CString::new(name.as_str()).unwrap_or_default();
    fixed.vfs.pNext = std::ptr::null_mut();
    fixed.vfs.zName = fixed.name.as_ptr();
    fixed.vfs.xCurrentTime = Some(current_days);
    fixed.vfs.xCurrentTimeInt64 = Some(current_milliseconds);
    // A connection finds its VFS by name once, and keeps the pointer.
    // SAFETY: the VFS lives until the returned clock is dropped, and is listed during this call alone.
    let opened = unsafe {
        ffi::sqlite3_vfs_register(clock.0.cast(), 0);
        let opened =
            Connection::open_in_memory_with_flags_and_vfs(OpenFlags::default(), name.as_str());
        ffi::sqlite3_vfs_unregister(clock.0.cast());
        opened
    };
    Ok((opened?, clock))
}

unsafe extern "C" fn current_milliseconds(vfs: *mut ffi::sqlite3_vfs, now: *mut i64) -> c_int {
    // SAFETY: SQLite gives the VFS that it was registered with.
    unsafe { *now = (*vfs.cast::<FixedVfs>()).now.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_days(vfs: *mut ffi::sqlite3_vfs, now: *mut f64) -> c_int {
    // SAFETY: as above.
    unsafe { *now = (*vfs.cast::<FixedVfs>()).now.0 as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

/// Makes the modifiers `localtime` and `utc` the identity, whatever the machine's time zone.
unsafe extern "C" fn utc(seconds: *const c_void, broken_down: *mut c_void) -> c_int {
    // SAFETY: SQLite gives a `time_t` and a `struct tm`.
    let found = unsafe { libc::gmtime_r(seconds.cast(), broken_down.cast()) };
    c_int::from(found.is_null())
}
