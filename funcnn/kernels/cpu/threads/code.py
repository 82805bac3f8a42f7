"""What the pool's threads run, in LLVM IR: the state's words, ``funcnn_parallel_for`` and ``funcnn_worker``.

Everything stands in one array of words, a line of the cache for each that is written by itself. ``GATE`` holds the number of
the call, whether it is open, and how many have joined; only an open gate lets a worker in, by compare-and-exchange, so what
the caller wrote before (``LOOP``, ``BLOCK``, ``LIMIT``) is that call's. ``DONE`` counts who has finished. Who sleeps says so
first (``ASLEEP``), then looks at the gate again, then takes its lock; who wakes it exchanges that word, and frees the lock if
it was set. ``$name`` stands for a constant below or an address of the process (``pool.py``).

    parallel_for: no workers, or LOCK is taken: loop(0), alone
                  write the job, open the gate, wake who sleeps, loop(0), close the gate
                  until DONE is how many had joined: spin, then sleep
    worker:       until QUIT: if the gate is open for a call not seen yet: join, loop(worker), DONE += 1, wake the caller
                  else spin for SPIN_NS, or not at all if some worker was kept from its core lately, then sleep
"""

from __future__ import annotations

LINE_WORDS = 8  # in a line of the cache
LOCK, GATE, JOB, DONE, SIZE, ASLEEP, HELD, WORKERS = (LINE_WORDS * i for i in range(8))
LOOP, BLOCK, LIMIT = JOB, JOB + 1, JOB + 2
LENGTH = HELD + 1  # how long workers are held
QUIT, CALLER = SIZE + 1, SIZE + 2  # whether the workers shall end; the caller's lock
SPIN_NS = 5_000_000  # that an idle worker spins: the Python between two long kernels, and more
AWAY_NS = 100_000  # between two looks at the clock (2 us of work) that mean that another process had the core
HOLD_NS, LONGEST_HOLD_NS = 2_000_000, 32_000_000  # for which workers sleep when idle after that; doubled each time
AGAIN_TIMES = 4  # in which it happens within so many times the last one, since a single interruption is no busy machine
CALLER_PAUSES = 2_000  # before the caller sleeps, 30 to 100 us by processor
MOST_WORKERS = 255  # as many as a word of the gate counts and no machine of today needs more
LOOK_PAUSES = 32  # between two looks at the clock

CODE = """
define i64* @at(i64 %place) alwaysinline {
  %bytes = shl i64 %place, 3
  %address = add i64 %bytes, $state
  %pointer = inttoptr i64 %address to i64*
  ret i64* %pointer
}

define void @free(i64 %place) {
  %p = call i64* @at(i64 %place)
  %lock = load i64, i64* %p
  %release = inttoptr i64 $release to void (i64)*
  call void %release(i64 %lock)
  ret void
}

define void @take(i64 %place) {
  %p = call i64* @at(i64 %place)
  %lock = load i64, i64* %p
  %acquire = inttoptr i64 $acquire to i32 (i64, i32)*
  %taken = call i32 %acquire(i64 %lock, i32 1)
  ret void
}

define i64 @woken(i64 %asleep, i64 %lock) {  ; whether this call woke who sleeps there
  %p = call i64* @at(i64 %asleep)
  %set = load atomic i64, i64* %p seq_cst, align 8
  %is = icmp ne i64 %set, 0
  br i1 %is, label %exchange, label %no
exchange:
  %before = atomicrmw xchg i64* %p, i64 0 seq_cst
  %mine = icmp ne i64 %before, 0
  br i1 %mine, label %wake, label %no
wake:
  call void @free(i64 %lock)
  ret i64 1
no:
  ret i64 0
}

define void @awake(i64 %asleep, i64 %lock) {  ; who said that it sleeps stays awake; a lock freed meanwhile is taken
  %p = call i64* @at(i64 %asleep)
  %before = atomicrmw xchg i64* %p, i64 0 seq_cst
  %mine = icmp ne i64 %before, 0
  br i1 %mine, label %done, label %consume
consume:
  call void @take(i64 %lock)
  br label %done
done:
  ret void
}

define void @run(i64 %worker) {
  %p = call i64* @at(i64 $LOOP)
  %loop = load i64, i64* %p
  %q = call i64* @at(i64 $BLOCK)
  %block = load i64, i64* %q
  %f = inttoptr i64 %loop to void (i64, i64)*
  call void %f(i64 %worker, i64 %block)
  ret void
}

define void @funcnn_parallel_for(i64 %loop, i64 %block, i64 %threads) {
entry:
  %lock = call i64* @at(i64 $LOCK)
  %gate = call i64* @at(i64 $GATE)
  %done = call i64* @at(i64 $DONE)
  %asleep = call i64* @at(i64 $ASLEEP)
  %size.p = call i64* @at(i64 $SIZE)
  %size = load atomic i64, i64* %size.p acquire, align 8
  %all = add i64 %size, 1
  %fewer = icmp slt i64 %threads, %all
  %limit = select i1 %fewer, i64 %threads, i64 %all
  %many = icmp sgt i64 %limit, 1
  br i1 %many, label %try, label %alone
try:
  %pair = cmpxchg i64* %lock, i64 0, i64 1 acquire monotonic
  %got = extractvalue { i64, i1 } %pair, 1
  br i1 %got, label %open, label %alone
alone:
  %f = inttoptr i64 %loop to void (i64, i64)*
  call void %f(i64 0, i64 %block)
  ret void
open:
  %loop.p = call i64* @at(i64 $LOOP)
  store i64 %loop, i64* %loop.p
  %block.p = call i64* @at(i64 $BLOCK)
  store i64 %block, i64* %block.p
  %limit.p = call i64* @at(i64 $LIMIT)
  store atomic i64 %limit, i64* %limit.p monotonic, align 8
  store atomic i64 0, i64* %done monotonic, align 8
  %last = load atomic i64, i64* %gate monotonic, align 8
  %call = lshr i64 %last, 32
  %next = add i64 %call, 1
  %high = shl i64 %next, 32
  %opened = or i64 %high, 65536
  store atomic i64 %opened, i64* %gate seq_cst, align 8
  br label %wake
wake:
  %i = phi i64 [ 1, %open ], [ %i.next, %wake ]
  %line = mul i64 %i, $LINE_WORDS
  %sleeper = add i64 %line, $WORKERS
  %sleeper.lock = add i64 %sleeper, 1
  %woke = call i64 @woken(i64 %sleeper, i64 %sleeper.lock)
  %i.next = add i64 %i, 1
  %more = icmp slt i64 %i.next, %limit
  br i1 %more, label %wake, label %work
work:
  call void @run(i64 0)
  %closed = atomicrmw and i64* %gate, i64 -65537 seq_cst
  %joined = and i64 %closed, 65535
  br label %wait
wait:
  %pauses = phi i64 [ 0, %work ], [ %pauses.next, %again ], [ 0, %sleep ]
  %count = load atomic i64, i64* %done seq_cst, align 8
  %complete = icmp eq i64 %count, %joined
  br i1 %complete, label %finish, label %patient
patient:
  %enough = icmp sge i64 %pauses, $CALLER_PAUSES
  br i1 %enough, label %announce, label %again
again:
  $pause
  %pauses.next = add i64 %pauses, 1
  br label %wait
announce:
  store atomic i64 1, i64* %asleep seq_cst, align 8
  %recount = load atomic i64, i64* %done seq_cst, align 8
  %late = icmp eq i64 %recount, %joined
  br i1 %late, label %stay, label %sleep
sleep:
  call void @take(i64 $CALLER)
  br label %wait
stay:
  call void @awake(i64 $ASLEEP, i64 $CALLER)
  br label %finish
finish:
  store atomic i64 0, i64* %lock release, align 8
  ret void
}

$now

define i64 @invited(i64 %worker, i64 %seen) {  ; the gate's word if it is open to this worker for a new call, else 0
  %gate = call i64* @at(i64 $GATE)
  %word = load atomic i64, i64* %gate seq_cst, align 8
  %limit.p = call i64* @at(i64 $LIMIT)
  %limit = load atomic i64, i64* %limit.p monotonic, align 8
  %flag = and i64 %word, 65536
  %open = icmp ne i64 %flag, 0
  %call = lshr i64 %word, 32
  %new = icmp ne i64 %call, %seen
  %wanted = icmp slt i64 %worker, %limit
  %fresh = and i1 %open, %new
  %yes = and i1 %fresh, %wanted
  %answer = select i1 %yes, i64 %word, i64 0
  ret i64 %answer
}

define void @funcnn_worker(i64 %worker) {
entry:
  %gate = call i64* @at(i64 $GATE)
  %done = call i64* @at(i64 $DONE)
  %quit.p = call i64* @at(i64 $QUIT)
  %held.p = call i64* @at(i64 $HELD)
  %line = mul i64 %worker, $LINE_WORDS
  %asleep = add i64 %line, $WORKERS
  %lock = add i64 %asleep, 1
  %asleep.p = call i64* @at(i64 %asleep)
  br label %idle
idle:
  %seen = phi i64 [ 0, %entry ], [ %seen, %sleep ], [ %seen, %stay ], [ %call, %work ]
  %start = call i64 @now()
  br label %look
look:
  %last = phi i64 [ %start, %idle ], [ %last, %spin ], [ %time, %calm ], [ %last, %join ]
  %pauses = phi i64 [ 0, %idle ], [ %pauses.next, %spin ], [ 0, %calm ], [ %pauses, %join ]
  %quit = load atomic i64, i64* %quit.p seq_cst, align 8
  %ends = icmp ne i64 %quit, 0
  br i1 %ends, label %end, label %ask
ask:
  %word = call i64 @invited(i64 %worker, i64 %seen)
  %come = icmp ne i64 %word, 0
  br i1 %come, label %join, label %pass
join:
  %more = add i64 %word, 1
  %pair = cmpxchg i64* %gate, i64 %word, i64 %more seq_cst seq_cst
  %in = extractvalue { i64, i1 } %pair, 1
  br i1 %in, label %work, label %look
work:
  call void @run(i64 %worker)
  %before = atomicrmw add i64* %done, i64 1 seq_cst
  %woke = call i64 @woken(i64 $ASLEEP, i64 $CALLER)
  %call = lshr i64 %word, 32
  br label %idle
pass:
  %long = icmp sge i64 %pauses, $LOOK_PAUSES
  br i1 %long, label %clock, label %spin
spin:
  $pause
  %pauses.next = add i64 %pauses, 1
  br label %look
clock:
  %time = call i64 @now()
  %gone = sub i64 %time, %last
  %away = icmp sgt i64 %gone, $AWAY_NS
  br i1 %away, label %contended, label %calm
contended:
  %before.until = load atomic i64, i64* %held.p monotonic, align 8
  %length.p = call i64* @at(i64 $LENGTH)
  %length = load atomic i64, i64* %length.p monotonic, align 8
  %double = shl i64 %length, 1
  %capped = icmp slt i64 %double, $LONGEST_HOLD_NS
  %longer = select i1 %capped, i64 %double, i64 $LONGEST_HOLD_NS
  %while = mul i64 %length, $AGAIN_TIMES
  %near = add i64 %before.until, %while
  %soon = icmp slt i64 %time, %near
  %hold.for = select i1 %soon, i64 %longer, i64 $HOLD_NS
  store atomic i64 %hold.for, i64* %length.p monotonic, align 8
  %until = add i64 %time, %hold.for
  store atomic i64 %until, i64* %held.p monotonic, align 8
  br label %announce
calm:
  %held = load atomic i64, i64* %held.p monotonic, align 8
  %hold = icmp slt i64 %time, %held
  %spun = sub i64 %time, %start
  %bored = icmp sgt i64 %spun, $SPIN_NS
  %rest = or i1 %hold, %bored
  br i1 %rest, label %announce, label %look
announce:
  store atomic i64 1, i64* %asleep.p seq_cst, align 8
  %late = call i64 @invited(i64 %worker, i64 %seen)
  %ending = load atomic i64, i64* %quit.p seq_cst, align 8
  %either = or i64 %late, %ending
  %needed = icmp ne i64 %either, 0
  br i1 %needed, label %stay, label %sleep
sleep:
  call void @take(i64 %lock)
  br label %idle
stay:
  call void @awake(i64 %asleep, i64 %lock)
  br label %idle
end:
  ret void
}
"""

MONOTONIC = """
define i64 @now() {  ; nanoseconds, by POSIX's clock_gettime
  %time = alloca [2 x i64]
  %address = ptrtoint [2 x i64]* %time to i64
  %clock = inttoptr i64 $clock to i32 (i32, i64)*
  %failed = call i32 %clock(i32 $kind, i64 %address)
  %seconds.p = inttoptr i64 %address to i64*
  %seconds = load volatile i64, i64* %seconds.p
  %rest.a = add i64 %address, 8
  %rest.p = inttoptr i64 %rest.a to i64*
  %rest = load volatile i64, i64* %rest.p
  %whole = mul i64 %seconds, 1000000000
  %sum = add i64 %whole, %rest
  ret i64 %sum
}
"""
TICKS = """
define i64 @now() {  ; nanoseconds, by Windows' GetTickCount64, whose steps are shorter than what it times
  %clock = inttoptr i64 $clock to i64 ()*
  %ticks = call i64 %clock()
  %time = mul i64 %ticks, 1000000
  ret i64 %time
}
"""
