//! How work is spread over threads: sequentially unless told otherwise. Sums are cut by shape alone; results that do not depend on where a piece begins
//! may be cut by the number of threads. So one thread and sixty-four give the same bits.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rayon::Yield;
use rayon::prelude::*;

/// Whether a kernel may use the current rayon pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Par {
    /// Everything happens on the calling thread; rayon is never touched.
    #[default]
    Seq,
    /// Work above a kernel's threshold is split over the current rayon pool.
    Rayon,
}

impl Par {
    /// Threads that there are for a kernel.
    pub(crate) fn threads(self) -> usize {
        match self {
            Par::Seq => 1,
            Par::Rayon => rayon::current_num_threads(),
        }
    }
}

/// Bytes that a memory-bound kernel (add, copy, compare) should have per task: about 10 us of streaming from the second-level
/// cache, several times what it costs to wake a thread.
pub const CHEAP_GRAIN_BYTES: usize = 1 << 18;

/// Bytes that a kernel of some tens of operations an element (exp, tanh, log) should have per task: about 10 us of arithmetic.
pub const COSTLY_GRAIN_BYTES: usize = 1 << 16;

/// Calls `f(start, chunk)` for consecutive chunks of `chunk` elements of `data` (the last may be shorter).
///
/// With [`Par::Seq`], or when there is at most one chunk, it is one call `f(0, data)`. The pieces must therefore be
/// independent of each other: an element's value may depend on its index, not on the chunk it stands in.
pub fn for_each_chunk<T, F>(par: Par, data: &mut [T], chunk: usize, f: F)
where
    T: Send,
    F: Fn(usize, &mut [T]) + Sync + Send,
{
    let chunk = chunk.max(1);
    if par == Par::Seq || data.len() <= chunk {
        if !data.is_empty() {
            f(0, data);
        }
    } else {
        data.par_chunks_mut(chunk).enumerate().for_each(|(i, piece)| f(i * chunk, piece));
    }
}

/// Calls `f(start, end)` for consecutive ranges that cover `0..n`, `grain` indices each (the last may be shorter).
///
/// With [`Par::Seq`], when there is at most one range or the pool has one thread, it is one call `f(0, n)`: a range's results may not depend on where
/// it begins or ends.
pub fn for_each_range<F>(par: Par, n: usize, grain: usize, f: F)
where
    F: Fn(usize, usize) + Sync + Send,
{
    let grain = grain.max(1);
    if n <= grain || par.threads() == 1 {
        if n > 0 {
            f(0, n);
        }
    } else {
        (0..n.div_ceil(grain)).into_par_iter().for_each(|i| f(i * grain, ((i + 1) * grain).min(n)));
    }
}

/// How long a thread watches in vain before it goes to sleep after all.
const PATIENCE: Duration = Duration::from_micros(500);
/// Threads that watch, at most: many a kernel is cut into no more than some 16 pieces.
const WATCHERS: usize = 15;

thread_local! {
    /// Whether this thread attends to a sequence of kernels or watches another that does.
    static IS_BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` while other threads of the current rayon pool watch for the work that it splits off. In a sequence of short kernels they would fall
/// asleep after each, and to wake a thread takes longer than many a kernel. No result changes by it.
///
/// With [`Par::Seq`], in a pool of one thread, or within another call it is `f()`.
pub fn attended<R: Send>(par: Par, f: impl FnOnce() -> R + Send) -> R {
    if par.threads() == 1 {
        return f();
    }
    // Only to be on a thread of the pool.
    rayon::scope(|_| {
        if IS_BUSY.get() {
            return f();
        }
        let attention = Attention { done: Arc::default() };
        IS_BUSY.set(true);
        for _ in 0..(rayon::current_num_threads() - 1).min(WATCHERS) {
            let done = attention.done.clone();
            rayon::spawn(move || watch(&done));
        }
        f()
    })
}

/// Ends when it is dropped, also by a panic, and the watchers hear of it.
struct Attention {
    done: Arc<AtomicBool>,
}

impl Drop for Attention {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        IS_BUSY.set(false);
    }
}

/// Works on what the pool has to do until `done`, or until nothing comes for a while. A thread that waits for its own work has no time for this: it
/// would wait for itself.
fn watch(done: &AtomicBool) {
    if IS_BUSY.replace(true) {
        return;
    }
    let mut worked = Instant::now();
    while !done.load(Ordering::Acquire) {
        match rayon::yield_now() {
            Some(Yield::Executed) => worked = Instant::now(),
            _ if worked.elapsed() > PATIENCE => break,
            _ => std::thread::yield_now(),
        }
    }
    IS_BUSY.set(false);
}

/// A raw pointer that may be handed to another thread.
///
/// It promises nothing by itself: whoever dereferences it says why the threads' accesses do not overlap.
#[derive(Debug)]
pub(crate) struct SendPtr<T>(*mut T);

impl<T> Clone for SendPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SendPtr<T> {}

// SAFETY: a pointer value is plain data; every dereference of one is its own unsafe block with its own reason.
unsafe impl<T: Send> Send for SendPtr<T> {}
// SAFETY: as above; sharing the address shares no access.
unsafe impl<T: Send> Sync for SendPtr<T> {}

impl<T> SendPtr<T> {
    /// The pointer to the first element of `slice`.
    pub(crate) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// No address.
    pub(crate) const NULL: Self = Self(std::ptr::null_mut());

    /// A pointer of any origin.
    pub(crate) fn from_raw(pointer: *mut T) -> Self {
        Self(pointer)
    }

    /// The same address, of another type.
    pub(crate) fn cast<U>(self) -> SendPtr<U> {
        SendPtr(self.0.cast())
    }

    /// `count` elements further on.
    pub(crate) fn add(self, count: usize) -> Self {
        Self(self.0.wrapping_add(count))
    }

    /// The address.
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

/// A pool of so many threads for the kernels' tests; each is made once.
#[cfg(test)]
pub(crate) fn pool(threads: usize) -> &'static rayon::ThreadPool {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};
    static POOLS: Mutex<Option<HashMap<usize, &'static rayon::ThreadPool>>> = Mutex::new(None);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.get_or_insert_default().entry(threads).or_insert_with(|| {
        Box::leak(Box::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a few threads")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::AssertUnwindSafe;
    use std::sync::Mutex;

    #[test]
    fn ranges_cover_each_index_once() {
        for par in [Par::Seq, Par::Rayon] {
            for n in [0, 1, 7, 8, 9, 100] {
                let seen = Mutex::new(vec![0; n]);
                for_each_range(par, n, 8, |a, b| {
                    for slot in &mut seen.lock().unwrap()[a..b] {
                        *slot += 1;
                    }
                });
                assert!(seen.into_inner().unwrap().iter().all(|&c| c == 1));
            }
        }
    }

    #[test]
    fn watchers_change_nothing_and_end_with_what_they_watch() {
        for threads in [1, 2, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let sum = |par| {
                let total = Mutex::new(0);
                for _ in 0..50 {
                    for_each_range(par, 1000, 10, |a, b| *total.lock().unwrap() += b - a);
                }
                total.into_inner().unwrap()
            };
            for par in [Par::Seq, Par::Rayon] {
                assert_eq!(pool.install(|| attended(par, || sum(par))), 50_000);
                // One within the other, several at once, from outside the pool, and one that fails.
                assert_eq!(pool.install(|| attended(par, || attended(par, || sum(par)))), 50_000);
                let both = pool.install(|| rayon::join(|| attended(par, || sum(par)), || attended(par, || sum(par))));
                assert_eq!(both, (50_000, 50_000));
                let fails = || pool.install(|| attended(par, || panic!("it fails")));
                assert!(std::panic::catch_unwind(AssertUnwindSafe(fails)).is_err());
            }
            // The watchers of the last call go home by themselves.
            let start = Instant::now();
            while pool.broadcast(|_| IS_BUSY.get()).contains(&true) {
                assert!(start.elapsed() < Duration::from_secs(10), "a thread watches for ever");
            }
        }
        assert_eq!(attended(Par::Rayon, || 3), 3);
    }

    #[test]
    fn chunks_know_their_place() {
        for par in [Par::Seq, Par::Rayon] {
            let mut data = vec![0usize; 1003];
            for_each_chunk(par, &mut data, 10, |start, piece| {
                for (i, x) in piece.iter_mut().enumerate() {
                    *x = start + i;
                }
            });
            assert!(data.iter().enumerate().all(|(i, &x)| i == x));
        }
    }
}
