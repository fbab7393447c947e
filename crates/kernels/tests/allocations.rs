//! After a first call no kernel of this file's crate allocates: a compiled training step runs without the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use metaforge_kernels::{
    Binary, ConvDims, Par, Unary, argmax_rows, binary, conv_statistics, copy_strided, gather, log_softmax_rows,
    normalize, normalize_grad, rstd, scatter_add, select, sum_axes, unary, unary_assign, uniform,
};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting each thread's calls.
struct Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn kernels_do_not_allocate_after_the_first_call() {
    let (r, c) = (5000, 60);
    let n = r * c;
    let (mut x, mut out, mut row) = (vec![0.0f32; n], vec![0.0f32; n], vec![0.0f32; r]);
    let (mut index, par) = (vec![0u32; r], Par::Seq);
    let layer = ConvDims {
        n: 20,
        hw: [14, 14],
        ci: 20,
        co: 64,
        kernel: [3, 3],
        stride: [1, 1],
        pad: [[1, 1], [1, 1]],
        dilation: [1, 1],
        groups: 1,
    };
    let (mut y, [mut mean, mut scale]) = (vec![0.0; 20 * 14 * 14 * 64], [[0.0; 64]; 2]);
    let mut all = || {
        uniform([1, 2], &mut x);
        unary(par, Unary::Tanh, &x, &mut out);
        unary_assign(par, Unary::Relu, &mut out);
        binary(par, Binary::Mul, &x, &[c, 1], &row, &[0, 1], &[r, c], &mut out);
        binary(par, Binary::Mul, &x, &[c, 1], &row, &[1, 0], &[r, c], &mut out);
        select(par, &x, &[c, 1], &row, &[1, 0], &x, &[c, 1], &[r, c], &mut out);
        sum_axes(par, &x, &[r, c], &[true, false], &mut row[..c]);
        sum_axes(par, &x, &[r, c], &[false, true], &mut row);
        sum_axes(par, &x, &[r / 10, 10, c], &[true, false, true], &mut row[..10]);
        rstd(par, &x, 1, r, c, 1e-5, &mut row[..c]);
        normalize(par, &x, 1, r, c, 1e-5, &mut out);
        normalize_grad(par, &x, &row[..c], &x, 1, r, c, &mut out);
        normalize(par, &x, r, c, 1, 1e-5, &mut out);
        log_softmax_rows(par, &x, r, c, &mut out);
        argmax_rows(par, &x, r, c, &mut index);
        copy_strided(par, &x, 0, &[1, c as isize], &[c, r], &mut out, 0, &[r as isize, 1]);
        gather(par, &x, &index, 1, r, r, c, &mut out);
        scatter_add(par, &x, &index, 1, r, r, c, &mut out);
        let (image, weights) = (&x[..20 * 14 * 14 * 20], &x[..9 * 20 * 64]);
        conv_statistics(par, &layer, image, weights, 1e-5, &mut y, &mut mean, &mut scale);
    };
    all();
    let before = COUNT.get();
    all();
    assert_eq!(COUNT.get() - before, 0);
}
