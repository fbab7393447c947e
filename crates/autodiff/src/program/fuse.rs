//! Puts equations together that can run as one pass over memory.
//!
//! Equations are taken in order, and each joins the pass that its operands come from or that reads the same memory, unless the pass
//! would then wait for itself. What is cheap to compute again from little memory is computed again in a later pass instead of
//! being written out and read back: the normalised image of a batch norm, the scattered gradient of a pooling.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};

use metaforge_kernels::fused::{MAX_OPERANDS, Pooling};
use smallvec::SmallVec;

use super::fused::pass;
use super::graph::{Eqn, Graph, Op, Origin, Use, Val};
use super::role::{Role, dense, is_costly, is_dense, role};
use crate::aval::DType;

/// Equations of a pass, at most.
const MAX_MEMBERS: usize = MAX_OPERANDS;
/// Operands of a pass in memory and its parameters, at most.
const MAX_READS: usize = MAX_OPERANDS;
/// A value is computed again if the memory that this reads is at most so many times its own size: writing it out would take three accesses (the
/// line is read before it is written, and read back later).
const RECOMPUTE: usize = 2;
/// Steps that lead to a value computed again, at most.
const MAX_CONE: usize = 6;

/// A pass in the making, or an equation that stands alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    /// Equations in order; those computed again belong to several groups.
    pub(super) members: BTreeSet<usize>,
    /// Values that its members compute tile by tile.
    has: HashSet<Val>,
    reads: HashSet<Val>,
    /// Whether others may join.
    open: bool,
    pub(super) domain: Domain,
}

/// What a pass runs over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Domain {
    dtype: Option<DType>,
    /// Elements, for each pixel if there is pooling.
    pub(super) n: usize,
    pub(super) period: Option<usize>,
    pub(super) pooling: Option<Pooling>,
    /// Elements of the values that are summed.
    summed: Option<usize>,
}

impl Domain {
    /// Elements for each window.
    pub(super) fn windows(&self) -> Option<usize> {
        self.pooling.map(|p| windows(&p, self.n))
    }

    /// The domain with one more equation, if they go together.
    fn admit(mut self, role: Role, dtype: DType) -> Option<Domain> {
        if *self.dtype.get_or_insert(dtype) != dtype {
            return None;
        }
        let is_new = self.n == 0;
        match role {
            Role::Map { n, period } => {
                if is_new {
                    self.n = n;
                }
                (self.n == n || self.windows() == Some(n)).then_some(())?;
                self.column(n, period)
            }
            Role::Sum { n, period } => {
                if is_new {
                    self.n = n;
                }
                (self.n == n || self.windows() == Some(n)).then_some(())?;
                (*self.summed.get_or_insert(n) == n).then_some(())?;
                self.column(n, Some(period))
            }
            Role::Pool { pooling, full } => {
                if let Some(known) = self.pooling {
                    return (known == pooling && self.n == full).then_some(self);
                }
                (is_new || self.n == full || self.n == windows(&pooling, full)).then_some(())?;
                self.n = full;
                self.pooling = Some(pooling);
                self.column(full, Some(pooling.channels))
            }
        }
    }

    fn column(mut self, n: usize, period: Option<usize>) -> Option<Domain> {
        let Some(c) = period else { return Some(self) };
        (*self.period.get_or_insert(c) == c && n.is_multiple_of(c) && self.n.is_multiple_of(c)).then_some(self)
    }
}

fn windows(p: &Pooling, full: usize) -> usize {
    let [h, w] = [0, 1].map(|i| p.hw[i] / p.kernel[i]);
    full / (p.hw[0] * p.hw[1]) * h * w
}

/// The graph with passes in place of the equations that were put together.
pub(super) fn fuse(graph: Graph) -> Graph {
    let mut grouping = Grouping::new(&graph);
    for eqn in 0..graph.eqns.len() {
        grouping.place(eqn);
    }
    let order = grouping.order();
    rebuild(&grouping, &order)
}

struct Grouping<'g> {
    graph: &'g Graph,
    roles: Vec<Option<Role>>,
    /// Values that must stand in memory: outside of all passes they are read, or are results.
    stored: Vec<bool>,
    groups: Vec<Group>,
    /// The group of each equation (the first, if it is computed again elsewhere).
    home: Vec<usize>,
    /// For each group, itself and the groups that it waits for, directly or not.
    waits: Vec<Bits>,
    /// Groups that read a value from memory.
    readers: HashMap<Val, SmallVec<[usize; 4]>>,
}

/// What joining a group takes.
struct Entry {
    domain: Domain,
    /// The equation and those that are computed again for it.
    members: SmallVec<[usize; 4]>,
    reads: SmallVec<[Val; 8]>,
}

impl<'g> Grouping<'g> {
    fn new(graph: &'g Graph) -> Grouping<'g> {
        let roles: Vec<Option<Role>> = graph.eqns.iter().map(|eqn| role(graph, eqn)).collect();
        let mut stored = vec![false; graph.values.len()];
        for (eqn, role) in graph.eqns.iter().zip(&roles) {
            if role.is_none() {
                eqn.ins.iter().for_each(|x| stored[x.val] = true);
            }
        }
        graph.outputs.iter().for_each(|x| stored[x.val] = true);
        Grouping {
            graph,
            roles,
            stored,
            groups: Vec::new(),
            home: Vec::new(),
            waits: Vec::new(),
            readers: HashMap::new(),
        }
    }

    fn place(&mut self, eqn: usize) {
        let entries = self.candidates(eqn).into_iter().filter_map(|group| {
            let entry = self.entry(&self.groups[group], Some(group), eqn, true)?;
            Some((self.cost(&self.groups[group], &entry), group, entry))
        });
        if let Some((_, group, entry)) = entries.min_by_key(|(cost, ..)| *cost) {
            self.home.push(group);
            return self.join(group, entry);
        }
        let group = self.groups.len();
        self.waits.push(Bits::with(group));
        self.home.push(group);
        let fresh = Group { open: true, ..Group::default() };
        match self.entry(&fresh, None, eqn, true).or_else(|| self.entry(&fresh, None, eqn, false)) {
            Some(entry) => {
                self.groups.push(fresh);
                self.join(group, entry);
            }
            None => {
                self.groups.push(Group { members: [eqn].into(), ..Group::default() });
                let waits: SmallVec<[usize; 4]> =
                    self.graph.eqns[eqn].ins.iter().filter_map(|x| self.source(x.val)).collect();
                self.wait(group, &waits);
            }
        }
    }

    /// The groups that an equation may join: where its operands are computed, the last first, then where they are read.
    fn candidates(&self, eqn: usize) -> SmallVec<[usize; 8]> {
        let mut found: SmallVec<[usize; 8]> = SmallVec::new();
        if self.roles[eqn].is_none() {
            return found;
        }
        let dense = dense(self.graph, &self.graph.eqns[eqn]);
        found.extend(dense.iter().filter_map(|x| self.source(x.val)));
        found.sort_unstable_by_key(|&g| Reverse(g));
        for x in &dense {
            found.extend(self.readers.get(&x.val).into_iter().flatten().rev().take(3).copied());
        }
        let mut seen = HashSet::new();
        found.retain(|g| self.groups[*g].open && seen.insert(*g));
        found
    }

    /// The group that computes a value.
    fn source(&self, val: Val) -> Option<usize> {
        match self.graph.values[val].1 {
            Origin::Eqn(eqn) => Some(self.home[eqn]),
            Origin::Input(_) | Origin::Const(_) | Origin::OnDemand(_) => None,
        }
    }

    /// What it takes that `eqn` joins `group` (numbered `number`, if it exists already).
    fn entry(&self, group: &Group, number: Option<usize>, eqn: usize, cones: bool) -> Option<Entry> {
        let role = self.roles[eqn]?;
        let mut entry = Entry {
            domain: group.domain.admit(role, self.dtype(eqn))?,
            members: SmallVec::new(),
            reads: SmallVec::new(),
        };
        self.add(group, &mut entry, eqn, cones)?;
        let fits = group.members.len() + entry.members.len() <= MAX_MEMBERS
            && group.reads.len() + entry.reads.len() <= MAX_READS;
        let waits_for_itself =
            number.is_some_and(|n| entry.reads.iter().filter_map(|&v| self.source(v)).any(|g| self.waits[g].has(n)));
        (fits && !waits_for_itself).then_some(entry)
    }

    /// What an entry adds to a group: bytes from memory, and equations; where that is the same, the larger group is the cheaper. What is only in
    /// another pass so far must be written as well, which takes two accesses more.
    fn cost(&self, group: &Group, entry: &Entry) -> (usize, usize, Reverse<usize>) {
        let mut fresh: SmallVec<[Val; 8]> =
            entry.reads.iter().copied().filter(|val| !group.reads.contains(val)).collect();
        fresh.sort_unstable();
        fresh.dedup();
        let accesses = |val: Val| if self.stored[val] || self.source(val).is_none() { 1 } else { 3 };
        let bytes = fresh.iter().map(|&val| accesses(val) * self.graph.values[val].0.bytes()).sum();
        (bytes, entry.members.len(), Reverse(group.members.len()))
    }

    fn dtype(&self, eqn: usize) -> DType {
        // Indices are of the images that they point into.
        self.graph.eqns[eqn].ins[0].aval.dtype
    }

    /// Adds `eqn` to an entry, with what is computed again for it or read from memory.
    fn add(&self, group: &Group, entry: &mut Entry, eqn: usize, cones: bool) -> Option<()> {
        let e = &self.graph.eqns[eqn];
        let out = self.graph.values[e.outs[0]].0;
        for (i, x) in e.ins.iter().enumerate() {
            let is_dense = is_dense(e, i, &out);
            let here = |m: &usize| self.graph.eqns[*m].outs.contains(&x.val);
            if is_dense && (group.has.contains(&x.val) || entry.members.iter().any(here)) && !self.is_sum(x.val) {
                continue;
            }
            if group.has.contains(&x.val) {
                // A column of numbers, or a sum, that the pass itself computes is there only at its end.
                return None;
            }
            if is_dense && cones && !self.stored[x.val] && self.recompute(group, entry, *x).is_some() {
                continue;
            }
            entry.reads.push(x.val);
        }
        entry.members.push(eqn);
        Some(())
    }

    fn is_sum(&self, val: Val) -> bool {
        matches!(self.graph.values[val].1, Origin::Eqn(e) if matches!(self.roles[e], Some(Role::Sum { .. })))
    }

    /// Adds to an entry all that computes `x` again from what is in memory, if that is worth it.
    fn recompute(&self, group: &Group, entry: &mut Entry, x: Use) -> Option<()> {
        let (domain, members, reads) = (entry.domain, entry.members.len(), entry.reads.len());
        let done = self.try_recompute(group, entry, x);
        if done.is_none() {
            entry.domain = domain;
            entry.members.truncate(members);
            entry.reads.truncate(reads);
        }
        done
    }

    fn try_recompute(&self, group: &Group, entry: &mut Entry, x: Use) -> Option<()> {
        let mut cone: SmallVec<[usize; 8]> = SmallVec::new();
        let mut bytes = 0;
        self.cone(group, entry, x, &mut cone, &mut bytes)?;
        (bytes <= RECOMPUTE * x.aval.bytes()).then_some(())?;
        let mut domain = entry.domain;
        cone.sort_unstable();
        cone.dedup();
        // The windows first: they tell which of the others run over windows.
        let pools = |eqn: &&usize| matches!(self.roles[**eqn], Some(Role::Pool { .. }));
        for &eqn in cone.iter().filter(pools).chain(cone.iter().filter(|eqn| !pools(eqn))) {
            domain = domain.admit(self.roles[eqn]?, self.dtype(eqn))?;
        }
        entry.domain = domain;
        for &eqn in &cone {
            self.add(group, entry, eqn, false)?;
        }
        Some(())
    }

    /// The equations from memory to `x`, and the bytes that they read.
    fn cone(
        &self,
        group: &Group,
        entry: &Entry,
        x: Use,
        cone: &mut SmallVec<[usize; 8]>,
        bytes: &mut usize,
    ) -> Option<()> {
        let here = |val: Val| {
            group.has.contains(&val) || entry.members.iter().any(|&m| self.graph.eqns[m].outs.contains(&val))
        };
        if here(x.val) {
            return Some(());
        }
        let Origin::Eqn(eqn) = self.graph.values[x.val].1 else {
            *bytes += x.aval.bytes();
            return Some(());
        };
        let is_step = matches!(self.roles[eqn], Some(Role::Map { .. } | Role::Pool { .. }));
        let e = &self.graph.eqns[eqn];
        if self.stored[x.val] || !is_step || is_costly(&e.op) {
            *bytes += x.aval.bytes();
            // The value itself must be computed, not read.
            return (!cone.is_empty()).then_some(());
        }
        cone.push(eqn);
        (cone.len() <= MAX_CONE).then_some(())?;
        let out = self.graph.values[e.outs[0]].0;
        for (i, &x) in e.ins.iter().enumerate() {
            if is_dense(e, i, &out) {
                self.cone(group, entry, x, cone, bytes)?;
            }
        }
        Some(())
    }

    fn join(&mut self, group: usize, entry: Entry) {
        let waits: SmallVec<[usize; 8]> =
            entry.reads.iter().filter_map(|&v| self.source(v)).filter(|&g| g != group).collect();
        let to = &mut self.groups[group];
        to.domain = entry.domain;
        for eqn in entry.members {
            to.has.extend(self.graph.eqns[eqn].outs.iter());
            to.members.insert(eqn);
        }
        for val in entry.reads {
            self.stored[val] = true;
            if to.reads.insert(val) {
                self.readers.entry(val).or_default().push(group);
            }
        }
        self.wait(group, &waits);
    }

    /// Notes that `group` waits for others, and so does what waits for it.
    fn wait(&mut self, group: usize, others: &[usize]) {
        let mut more = Bits::default();
        for &other in others {
            if !self.waits[group].has(other) {
                more.add(&self.waits[other]);
            }
        }
        if !more.is_empty() {
            for waits in &mut self.waits {
                if waits.has(group) {
                    waits.add(&more);
                }
            }
        }
    }

    /// The groups in an order in which none comes before one that it waits for; among those that can, the one that was recorded first.
    fn order(&self) -> Vec<usize> {
        let mut missing: Vec<usize> = Vec::with_capacity(self.groups.len());
        let mut next: Vec<Vec<usize>> = vec![Vec::new(); self.groups.len()];
        for (number, group) in self.groups.iter().enumerate() {
            let reads: HashSet<Val> = match group.open {
                true => group.reads.clone(),
                false => group.members.iter().flat_map(|&m| self.graph.eqns[m].ins.iter().map(|x| x.val)).collect(),
            };
            let from: HashSet<usize> = reads.iter().filter_map(|&v| self.source(v)).collect();
            missing.push(from.len());
            from.into_iter().for_each(|g| next[g].push(number));
        }
        // The last equation that is its own: passes run as late as they were complete.
        let last: Vec<usize> = (0..self.groups.len())
            .map(|g| self.groups[g].members.iter().copied().filter(|&m| self.home[m] == g).max().unwrap_or(0))
            .collect();
        let mut ready: BinaryHeap<Reverse<(usize, usize)>> =
            (0..self.groups.len()).filter(|&g| missing[g] == 0).map(|g| Reverse((last[g], g))).collect();
        let mut order = Vec::with_capacity(self.groups.len());
        while let Some(Reverse((_, group))) = ready.pop() {
            order.push(group);
            for &after in &next[group] {
                missing[after] -= 1;
                if missing[after] == 0 {
                    ready.push(Reverse((last[after], after)));
                }
            }
        }
        assert_eq!(order.len(), self.groups.len(), "no pass waits for itself");
        order
    }
}

/// The equations of the groups in order, each group a pass; what nobody reads is left out of a pass.
fn rebuild(grouping: &Grouping<'_>, order: &[usize]) -> Graph {
    let graph = grouping.graph;
    let mut needed: HashSet<Val> = graph.outputs.iter().map(|x| x.val).collect();
    let mut eqns: Vec<Eqn> = Vec::new();
    for &number in order.iter().rev() {
        let group = &grouping.groups[number];
        let home = |m: usize| grouping.home[m] == number;
        let new = if group.open {
            pass(graph, group, &|val| needed.contains(&val) && matches!(graph.values[val].1, Origin::Eqn(e) if home(e)))
        } else {
            group.members.iter().map(|&m| copy(&graph.eqns[m])).next()
        };
        let Some(new) = new else { continue };
        needed.extend(new.ins.iter().map(|x| x.val));
        eqns.push(new);
    }
    eqns.reverse();
    let (values, consts, outputs) = (graph.values.clone(), graph.consts.clone(), graph.outputs.clone());
    Graph { values, eqns, consts, outputs, on_demand: Vec::new() }.renumbered()
}

/// An equation as it stands.
pub(super) fn copy(eqn: &Eqn) -> Eqn {
    let op = match &eqn.op {
        Op::Prim(prim) => Op::Prim(prim.clone()),
        Op::Statistics { eps } => Op::Statistics { eps: *eps },
        Op::ConvStatistics { eps, dims } => Op::ConvStatistics { eps: *eps, dims: dims.clone() },
        Op::Coefficients { rows } => Op::Coefficients { rows: *rows },
        Op::Product { dims, ending } => Op::Product { dims: dims.clone(), ending: *ending },
        Op::Step(op) => Op::Step(*op),
        Op::Fused { passes, inputs } => Op::Fused { passes: passes.clone(), inputs: *inputs },
        Op::FusedConv { fusion, inputs, at, dims } => {
            Op::FusedConv { fusion: fusion.clone(), inputs: *inputs, at: *at, dims: dims.clone() }
        }
        Op::FusedWeightGrad { fusion, inputs, dims } => {
            Op::FusedWeightGrad { fusion: fusion.clone(), inputs: *inputs, dims: dims.clone() }
        }
    };
    Eqn { op, ins: eqn.ins.clone(), outs: eqn.outs.clone() }
}

/// A set of small numbers.
#[derive(Clone, Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn with(i: usize) -> Bits {
        let mut bits = Bits(vec![0; i / 64 + 1]);
        bits.0[i / 64] |= 1 << (i % 64);
        bits
    }

    fn has(&self, i: usize) -> bool {
        self.0.get(i / 64).is_some_and(|word| word >> (i % 64) & 1 == 1)
    }

    fn add(&mut self, other: &Bits) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (to, from) in self.0.iter_mut().zip(&other.0) {
            *to |= from;
        }
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }
}
