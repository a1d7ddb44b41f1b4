//! The small executor that runs everything on a shard.
//!
//! Tasks are plain boxed futures in a slab; waking one pushes it onto a run queue, at most once. Each poll
//! runs under `catch_unwind`: a panic ends its task and nothing else. Wakers are ordinary `Arc`s, so waking
//! from another thread is sound: it goes through a small injection list and the shard's unpark hook, which
//! no hot path uses.
//!
//! Invariant: a task is in the run queue at most once, and a task that was woken while running runs again.
//! Lives on: one shard; only [`TaskHandle`] is shared.

use super::shard;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Runs the tasks of one shard.
pub struct Executor {
    tasks: RefCell<Slab<Task>>,
    ready: RefCell<VecDeque<Arc<TaskHandle>>>,
    foreign: Arc<Foreign>,
    panics: Cell<u64>,
}

struct Task {
    name: &'static str,
    handle: Arc<TaskHandle>,
    waker: Waker,
    /// Taken out while it is being polled.
    future: Option<LocalFuture>,
}

/// What a waker points to.
pub struct TaskHandle {
    key: usize,
    queued: AtomicBool,
    done: AtomicBool,
    foreign: Arc<Foreign>,
}

/// How other threads reach this executor.
struct Foreign {
    #[allow(
        clippy::disallowed_types,
        reason = "only wakes from other threads take it, and no hot path does"
    )]
    woken: std::sync::Mutex<Vec<Arc<TaskHandle>>>,
    any: AtomicBool,
    unpark: Box<dyn Fn() + Send + Sync>,
}

impl Executor {
    /// An executor whose sleeping thread is woken by `unpark`.
    pub fn new(unpark: Box<dyn Fn() + Send + Sync>) -> Self {
        let foreign = Foreign { woken: Default::default(), any: AtomicBool::new(false), unpark };
        Executor {
            tasks: RefCell::default(),
            ready: RefCell::default(),
            foreign: Arc::new(foreign),
            panics: Cell::new(0),
        }
    }

    /// Starts `future` as a task of its own. `name` is what the log says should it panic.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let handle = Arc::new(TaskHandle {
            key: entry.key(),
            queued: AtomicBool::new(true),
            done: AtomicBool::new(false),
            foreign: self.foreign.clone(),
        });
        let waker = Waker::from(handle.clone());
        entry.insert(Task { name, handle: handle.clone(), waker, future: Some(Box::pin(future)) });
        drop(tasks);
        self.ready.borrow_mut().push_back(handle);
    }

    /// Whether something could run now.
    pub fn has_ready(&self) -> bool {
        !self.ready.borrow().is_empty() || self.foreign.any.load(Ordering::Acquire)
    }

    /// How many tasks could run now.
    pub fn ready_count(&self) -> usize {
        self.take_foreign();
        self.ready.borrow().len()
    }

    /// How many tasks exist.
    pub fn task_count(&self) -> usize {
        self.tasks.borrow().len()
    }

    /// How many tasks ended by a panic.
    pub fn panic_count(&self) -> u64 {
        self.panics.get()
    }

    /// Polls once each task that was ready when called; true when there was one. Tasks that these wake run
    /// in the next call, so input and output get their turn in between.
    pub fn run_ready(&self) -> bool {
        self.run_turn(usize::MAX, || false, || true)
    }

    /// The same within bounds. Those behind the first `waiting` ones are polled first as long as they `may_overtake`,
    /// then all in the order in which they became ready, at least one, as long as there is reason to `go_on`, which is
    /// looked at after each. Those that were not polled stay in their order.
    pub fn run_turn(
        &self,
        waiting: usize,
        mut may_overtake: impl FnMut() -> bool,
        mut go_on: impl FnMut() -> bool,
    ) -> bool {
        let batch = self.ready_count();
        let mut left = batch;
        while left > waiting && may_overtake() {
            self.run_one(waiting);
            left -= 1;
        }
        for _ in 0..left {
            self.run_one(0);
            if !go_on() {
                break;
            }
        }
        batch > 0
    }

    /// Polls the ready task at `position` in the queue, for a simulation that chooses the order.
    pub fn run_one(&self, position: usize) {
        let Some(handle) = self.ready.borrow_mut().remove(position) else { return };
        // Cleared before the poll: a wake during the poll must queue the task again.
        handle.queued.store(false, Ordering::Release);
        if !handle.done.load(Ordering::Relaxed) {
            self.poll(&handle);
        }
    }

    fn poll(&self, handle: &Arc<TaskHandle>) {
        let (mut future, waker) = {
            let mut tasks = self.tasks.borrow_mut();
            let task = &mut tasks[handle.key];
            debug_assert!(Arc::ptr_eq(&task.handle, handle));
            (task.future.take().expect("a task is polled by one caller"), task.waker.clone())
        };
        let polled =
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut Context::from_waker(&waker))));
        match polled {
            Ok(std::task::Poll::Pending) => self.tasks.borrow_mut()[handle.key].future = Some(future),
            Ok(std::task::Poll::Ready(())) => self.finish(handle, future),
            Err(_) => {
                self.panics.set(self.panics.get() + 1);
                let name = self.tasks.borrow()[handle.key].name;
                tracing::error!(task = name, "task panicked; it alone ends");
                self.finish(handle, future);
            }
        }
    }

    /// Takes a finished task out. Its future is dropped outside every borrow: destructors may spawn or wake.
    fn finish(&self, handle: &Arc<TaskHandle>, future: LocalFuture) {
        handle.done.store(true, Ordering::Relaxed);
        let task = self.tasks.borrow_mut().remove(handle.key);
        if catch_unwind(AssertUnwindSafe(move || drop((task, future)))).is_err() {
            self.panics.set(self.panics.get() + 1);
            tracing::error!("a task's destructor panicked");
        }
    }

    /// Drops every task, running or not. For the end of a shard.
    pub fn clear(&self) {
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        for (_, task) in &tasks {
            task.handle.done.store(true, Ordering::Relaxed);
        }
        if catch_unwind(AssertUnwindSafe(move || drop(tasks))).is_err() {
            self.panics.set(self.panics.get() + 1);
        }
        self.ready.borrow_mut().clear();
    }

    fn take_foreign(&self) {
        if self.foreign.any.swap(false, Ordering::AcqRel) {
            let woken =
                std::mem::take(&mut *self.foreign.woken.lock().expect("no code panics under this lock"));
            self.ready.borrow_mut().extend(woken);
        }
    }
}

impl Wake for TaskHandle {
    fn wake(self: Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) || self.done.load(Ordering::Relaxed) {
            return;
        }
        let foreign = self.foreign.clone();
        if let Some(task) = push_if_here(self, &foreign) {
            foreign.woken.lock().expect("no code panics under this lock").push(task);
            foreign.any.store(true, Ordering::Release);
            (foreign.unpark)();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.load(Ordering::Acquire) {
            self.clone().wake();
        }
    }
}

/// Pushes onto the run queue when the task belongs to the shard that runs on this thread; else gives it back.
fn push_if_here(task: Arc<TaskHandle>, foreign: &Arc<Foreign>) -> Option<Arc<TaskHandle>> {
    let mut task = Some(task);
    shard::with_current(|shard| {
        let executor = shard.executor();
        if Arc::ptr_eq(&executor.foreign, foreign) {
            executor.ready.borrow_mut().extend(task.take());
        }
    });
    task
}

/// Runs `section`, in which a panic would leave shared state half changed, and aborts the process should it
/// panic: recovery from the log is the only handler such a panic can have.
pub fn critical<T>(section: impl FnOnce() -> T) -> T {
    struct AbortOnUnwind;
    impl Drop for AbortOnUnwind {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!(
                    "millpond: a panic inside a storage section; ending now, recovery will run at the next start"
                );
                std::process::abort();
            }
        }
    }
    let guard = AbortOnUnwind;
    let value = section();
    drop(guard);
    value
}
