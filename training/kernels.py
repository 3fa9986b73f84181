"""The step of equilibrium propagation, or of back-propagation, on a layered netlist, in Numba. Flat arrays, no names,
no checks of input.

The twin, layers.py, has the equations. How the work is arranged:

- A crossbar is stored rows x columns; the last one transposed, its few outputs being the rows. One pass over the rows
  serves both directions of a sweep: for a block of rows the dot products with the column layer complete the rows'
  currents, the rows settle, and their new voltages are added into the column layer's currents.
- `s` of a layer accumulates its currents; when the layer has settled it is reset to the layer's base (bias, and for
  layer 0 the drive of the inputs), to which the neighbours then add.
- The two nudged phases are one batch of 2B rows: v1, and below it delta (or v2 in the plain form).
- Back-propagation keeps the voltages of its T sweeps on a tape. A backward step is a sweep too, with the layers in
  reverse order: mu = lambda / a inside the bounds, where lambda starts at 0 and the neighbours' mu are added to it.
- The update of a step is left pending and joins the next step's pass: update, clip, sums, and - for the input
  crossbar - the next drive, while a row is in the cache.

Only `steps` is kept on disk: a file that linked parallel functions compiled by different processes crashed when loaded.
All that it calls is in this file, so it is compiled again when the file changes, and only then.

Sizes: B samples per batch; layer k has n[k + 1] units, and there are n[0] inputs. State, s and base of layer k are the
(2B, n) blocks that start at 2B u[k] of their flat arrays; `unit` arrays (sums, bounds, biases) have layer k at u[k].
The tapes also consist of blocks: voltages ((T + 1) B, n), from the free state on, and mu (T B, n), B rows per sweep.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numba import njit, prange

from circuitsim.compiled import compile_apart, jit, on_disk

_FAST = {"contract", "reassoc", "nsz", "arcp"}
_BLOCK = 16  # rows of a crossbar between dot products and accumulation: they stay in the second-level cache
_TILE = 4096  # columns of the input crossbar at a time: their sums and drives stay there too

_FIRST = np.int64(0)  # a row, or a layer; a literal 0 has a type of its own, for which Numba would compile all again
_PARALLEL = 200_000  # entries of a crossbar from which threads pay

OK, NOT_CONVEX, NOT_FINITE, CUT_OFF = 0, 1, 2, 3
FREE, DIFFERENCE, PLAIN, BACK = range(4)  # modes: a free phase, two forms of nudged ones; back-propagation


def mode_of(algorithm: str, form: str) -> int:
    """The mode of `steps` for the algorithm and the form of a recipe."""
    if algorithm == "bp":
        return BACK
    return PLAIN if (algorithm, form) == ("ep", "plain") else DIFFERENCE


# -- products of a few rows of a matrix with a few rows of a batch -----------------------------------------------------


@njit(fastmath=_FAST)
def _dots(g, first, rows, x, count, out):
    """out[b, r] = g[first + r] . x[b] for r < rows, b < count."""
    n = g.shape[1]
    r = 0
    while r + 2 <= rows:
        i = first + r
        b = 0
        while b + 4 <= count:
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = g.dtype.type(0)
            for j in range(n):
                g0, g1 = g[i, j], g[i + 1, j]
                x0, x1, x2, x3 = x[b, j], x[b + 1, j], x[b + 2, j], x[b + 3, j]
                s00 += g0 * x0
                s01 += g0 * x1
                s02 += g0 * x2
                s03 += g0 * x3
                s10 += g1 * x0
                s11 += g1 * x1
                s12 += g1 * x2
                s13 += g1 * x3
            out[b, r], out[b + 1, r], out[b + 2, r], out[b + 3, r] = s00, s01, s02, s03
            out[b, r + 1], out[b + 1, r + 1], out[b + 2, r + 1], out[b + 3, r + 1] = s10, s11, s12, s13
            b += 4
        while b < count:
            s0 = s1 = g.dtype.type(0)
            for j in range(n):
                s0 += g[i, j] * x[b, j]
                s1 += g[i + 1, j] * x[b, j]
            out[b, r], out[b, r + 1] = s0, s1
            b += 1
        r += 2
    while r < rows:
        for b in range(count):
            s0 = g.dtype.type(0)
            for j in range(n):
                s0 += g[first + r, j] * x[b, j]
            out[b, r] = s0
        r += 1


@njit(fastmath=_FAST)
def _add(g, first, rows, y, count, s):
    """s[b] += sum over r < rows of y[b, first + r] g[first + r]."""
    n = g.shape[1]
    r = 0
    while r + 4 <= rows:
        i = first + r
        b = 0
        while b + 2 <= count:
            y00, y01, y02, y03 = y[b, i], y[b, i + 1], y[b, i + 2], y[b, i + 3]
            y10, y11, y12, y13 = y[b + 1, i], y[b + 1, i + 1], y[b + 1, i + 2], y[b + 1, i + 3]
            for j in range(n):
                g0, g1, g2, g3 = g[i, j], g[i + 1, j], g[i + 2, j], g[i + 3, j]
                s[b, j] += g0 * y00 + g1 * y01 + g2 * y02 + g3 * y03
                s[b + 1, j] += g0 * y10 + g1 * y11 + g2 * y12 + g3 * y13
            b += 2
        while b < count:
            y00, y01, y02, y03 = y[b, i], y[b, i + 1], y[b, i + 2], y[b, i + 3]
            for j in range(n):
                s[b, j] += g[i, j] * y00 + g[i + 1, j] * y01 + g[i + 2, j] * y02 + g[i + 3, j] * y03
            b += 1
        r += 4
    while r < rows:
        for b in range(count):
            y0 = y[b, first + r]
            for j in range(n):
                s[b, j] += g[first + r, j] * y0
        r += 1


@njit(nogil=True)
def _clear(array):
    """All of an array becomes 0."""
    flat = array.reshape(-1)
    for j in range(flat.size):
        flat[j] = 0


# -- settling ----------------------------------------------------------------------------------------------------------


@njit(nogil=True)
def _settle(mode, s, v, extra, first, stop, size, a, lo, hi, nudged, t, beta1, beta2):
    """Units first:stop of a layer take their exact step; `extra` (rows, stop - first) is added to their currents s.

    v (2B, n) takes the new state; a, lo, hi (n,); nudged: the layer is the outputs, with targets t (B, n). Mode BACK: s
    is lambda, the first B rows of v take mu, the others hold the voltages after the step that is differentiated.
    """
    zero = a.dtype.type(0)
    b1 = beta1 if nudged else zero
    b2 = beta2 if nudged else zero
    gap = beta1 - beta2
    inverse = a.dtype.type(1) / gap if gap != zero else zero
    for b in range(size):
        for u in range(first, stop):
            s1 = s[b, u] + extra[b, u - first]
            if mode == BACK:
                v[b, u] = s1 / a[u] if lo[u] < v[size + b, u] < hi[u] else zero
                continue
            target = t[b, u] if nudged else zero
            p1 = (s1 + b1 * target) / (a[u] + b1)
            v1 = min(max(p1, lo[u]), hi[u])
            v[b, u] = v1
            if mode == FREE:
                continue
            other = s[size + b, u] + extra[size + b, u - first]
            if mode == PLAIN:
                v[size + b, u] = min(max((other + b2 * target) / (a[u] + b2), lo[u]), hi[u])
                continue
            dp = other / (a[u] + b2)
            if nudged:
                dp += (a[u] * target - s1) / ((a[u] + b1) * (a[u] + b2))
            p2 = p1 - gap * dp
            v2 = min(max(p2, lo[u]), hi[u])
            v[size + b, u] = dp if v1 == p1 and v2 == p2 else (v1 - v2) * inverse


@njit(nogil=True)
def _pass_rows(mode, g, first, stop, s_row, v_row, v_col, s_col, size, a, lo, hi, nudged, t, beta1, beta2):
    """Rows first:stop of a crossbar: complete their currents, settle them, add them into the columns' currents."""
    count = _rows(mode, size)
    extra = np.empty((count, _BLOCK), g.dtype)
    for i in range(first, stop, _BLOCK):
        rows = min(_BLOCK, stop - i)
        _dots(g, i, rows, v_col, count, extra)
        _settle(mode, s_row, v_row, extra, i, i + rows, size, a, lo, hi, nudged, t, beta1, beta2)
        _add(g, i, rows, v_row, count, s_col)


@njit(parallel=True)
def _pass_parallel(mode, g, s_row, v_row, v_col, s_col, size, a, lo, hi, nudged, t, beta1, beta2, n_parts, parts):
    """_pass_rows, each part of the rows on its own thread, into sums of its own in `parts`."""
    rows, cols = g.shape
    count = _rows(mode, size)
    for k in prange(n_parts):
        part = parts[k * count * cols : (k + 1) * count * cols].reshape(count, cols)
        _clear(part)
        first, stop = _part(rows, k, n_parts)
        _pass_rows(mode, g, first, stop, s_row, v_row, v_col, part, size, a, lo, hi, nudged, t, beta1, beta2)
    for k in range(n_parts):
        part = parts[k * count * cols : (k + 1) * count * cols].reshape(count, cols)
        for b in range(count):
            for j in range(cols):
                s_col[b, j] += part[b, j]


@njit(nogil=True)
def _rows(mode, size):
    """Rows of a batch in this mode."""
    return size if mode in (FREE, BACK) else 2 * size


@njit(nogil=True)
def _part(rows, k, n_parts):
    """First and end row of part k: parts consist of whole blocks."""
    first = (rows * k // n_parts) // _BLOCK * _BLOCK
    return first, rows if k + 1 == n_parts else (rows * (k + 1) // n_parts) // _BLOCK * _BLOCK


# -- one sweep ---------------------------------------------------------------------------------------------------------


@njit(nogil=True)
def _layer(flat, u, k, n, rows):
    """The (rows, n_k) block of layer k."""
    return flat[rows * u[k] : rows * (u[k] + n[k + 1])].reshape(rows, n[k + 1])


@njit(nogil=True)
def _crossbar_of_rows(k, depth):
    """The crossbar whose rows are layer k, and the layer of its columns; -1 when there is none."""
    if depth > 1 and k == depth - 1:
        return k, k - 1  # the last one, transposed
    if k < depth - 2:
        return k + 1, k + 1
    return -1, -1


@njit(nogil=True)
def _reset(mode, s, base, size):
    """Reset the currents of a layer that has settled to its base; the currents of delta, and lambda, to 0."""
    zero = s.dtype.type(0)
    for b in range(size):
        for j in range(s.shape[1]):
            s[b, j] = zero if mode == BACK else base[b, j]
            if _rows(mode, size) > size:
                s[size + b, j] = base[b, j] if mode == PLAIN else zero


@njit(nogil=True)
def _sweep(mode, n, u, where, g, v, s, base, size, a, lo, hi, t, beta1, beta2, zeros, n_parts, parts):
    """One sweep: layers 0, 2, ... at once, then 1, 3, ...; in mode BACK first 1, 3, ..."""
    depth = n.size - 1
    for half in range(2):
        for k in range(1 - half if mode == BACK else half, depth, 2):
            units = n[k + 1]
            own = slice(u[k], u[k] + units)
            v_row, s_row = _layer(v, u, k, n, 2 * size), _layer(s, u, k, n, 2 * size)
            nudged = mode != FREE and k == depth - 1
            c, other = _crossbar_of_rows(k, depth)
            if c < 0:
                _settle(
                    mode, s_row, v_row, zeros, _FIRST, units, size, a[own], lo[own], hi[own], nudged, t, beta1, beta2
                )  # fmt: skip
            else:
                cols = n[other + 1]
                matrix = g[where[c] : where[c] + units * cols].reshape(units, cols)
                v_col, s_col = _layer(v, u, other, n, 2 * size), _layer(s, u, other, n, 2 * size)
                if n_parts > 1 and units * cols >= _PARALLEL:
                    _pass_parallel(
                        mode, matrix, s_row, v_row, v_col, s_col, size, a[own], lo[own], hi[own], nudged, t,
                        beta1, beta2, n_parts, parts,
                    )  # fmt: skip
                else:
                    _pass_rows(
                        mode, matrix, _FIRST, units, s_row, v_row, v_col, s_col, size, a[own], lo[own], hi[own], nudged,
                        t, beta1, beta2,
                    )  # fmt: skip
            _reset(mode, s_row, _layer(base, u, k, n, size), size)


# -- the update of a step, and the sums of the next --------------------------------------------------------------------


@njit(fastmath=False)
def _both(p, q):
    """p + q, to be added to a sum as one number. (With the caller's fastmath the compiler would choose the order.)"""
    return p + q


@njit(fastmath=_FAST)
def _lower(p, c, sums, low, high):
    """p <- clip(p - c, low, high); sums += p."""
    for j in range(p.size):
        value = p[j] - c[j]
        value = value if value > low else low
        value = value if value < high else high
        p[j] = value
        sums[j] += value


@njit(fastmath=_FAST)
def _lower_two(p, q, c, sums, low, high):
    """_lower of two rows."""
    for j in range(p.size):
        one, two = p[j] - c[j], q[j] - c[j]
        one = one if one > low else low
        two = two if two > low else low
        one = one if one < high else high
        two = two if two < high else high
        p[j], q[j] = one, two
        sums[j] += _both(one, two)


@njit(fastmath=_FAST)
def _turn_two(p, q, c, x0, x1, x2, x3, e0, e1, e2, e3, sums, low, high):
    """p <- clip(p - c + x e, low, high), q <- clip(q - c - x e, low, high), four samples; sums += both."""
    for j in range(p.size):
        slope = x0 * e0[j] + x1 * e1[j] + x2 * e2[j] + x3 * e3[j]
        one, two = p[j] - c[j] + slope, q[j] - c[j] - slope
        one = one if one > low else low
        two = two if two > low else low
        one = one if one < high else high
        two = two if two < high else high
        p[j], q[j] = one, two
        sums[j] += _both(one, two)


@njit(fastmath=_FAST)
def _drive_two(p, q, x0, x1, x2, x3, d0, d1, d2, d3):
    """d_b += x_b (p - q), four samples."""
    for j in range(p.size):
        value = p[j] - q[j]
        d0[j] += x0 * value
        d1[j] += x1 * value
        d2[j] += x2 * value
        d3[j] += x3 * value


@njit(fastmath=_FAST)
def _turn(p, c, x, e, first, sums, low, high):
    """p <- clip(p - c + x e, low, high), any number of samples; sums += p."""
    for j in range(p.size):
        slope = p.dtype.type(0)
        for b in range(x.size):
            slope += x[b] * e[b, first + j]
        value = p[j] - c[j] + slope
        value = value if value > low else low
        value = value if value < high else high
        p[j] = value
        sums[j] += value


@njit(fastmath=_FAST)
def _turn_two_by_any(p, q, c, x, e, first, sums, low, high):
    """_turn_two, any number of samples."""
    for j in range(p.size):
        slope = p.dtype.type(0)
        for b in range(x.size):
            slope += x[b] * e[b, first + j]
        one, two = p[j] - c[j] + slope, q[j] - c[j] - slope
        one = one if one > low else low
        two = two if two > low else low
        one = one if one < high else high
        two = two if two < high else high
        p[j], q[j] = one, two
        sums[j] += _both(one, two)


@njit(fastmath=_FAST)
def _drive(p, x, drive, first):
    """drive[b] += x[b] p, any number of samples."""
    for b in range(x.size):
        for j in range(p.size):
            drive[b, first + j] += x[b] * p[j]


@njit(fastmath=_FAST)
def _drive_two_by_any(p, q, x, drive, first):
    """_drive_two, any number of samples."""
    for b in range(x.size):
        for j in range(p.size):
            drive[b, first + j] += x[b] * (p[j] - q[j])


@njit(nogil=True)
def _lit(x):
    """Whether a feature x (B,) is not 0 in any sample."""
    lit = False
    for value in x:
        lit |= value != 0
    return lit


@njit(fastmath=_FAST)
def _input_columns(g, first, stop, c, e, x_old, x_new, sums, drive, low, high):
    """Columns first:stop of the input crossbar: g <- clip(g - c + x_old e, low, high); sums += g; drive += x_new g.

    x_old, x_new (features, B). With twice as many rows as features, row m + i takes the negated feature i: both rows go
    together, and the drive takes their difference, in which nothing cancels later. A feature that is 0 in the whole
    batch (most pixels are) needs no product. Four samples have loops of their own: they are the paper's batch.
    """
    m, size = x_old.shape
    mirrored = g.shape[0] == 2 * m
    four = mirrored and size == 4
    c, sums = c[first:stop], sums[first:stop]
    e0, e1 = e[0, first:stop], e[1 % size, first:stop]
    e2, e3 = e[2 % size, first:stop], e[3 % size, first:stop]
    d0, d1 = drive[0, first:stop], drive[1 % size, first:stop]
    d2, d3 = drive[2 % size, first:stop], drive[3 % size, first:stop]
    for i in range(m):
        p = g[i, first:stop]
        q = g[m + i, first:stop] if mirrored else p
        old, new = x_old[i], x_new[i]
        if not _lit(old):
            if mirrored:
                _lower_two(p, q, c, sums, low, high)
            else:
                _lower(p, c, sums, low, high)
        elif four:
            _turn_two(p, q, c, old[0], old[1], old[2], old[3], e0, e1, e2, e3, sums, low, high)
        elif mirrored:
            _turn_two_by_any(p, q, c, old, e, first, sums, low, high)
        else:
            _turn(p, c, old, e, first, sums, low, high)
        if not _lit(new):
            continue
        if four:
            _drive_two(p, q, new[0], new[1], new[2], new[3], d0, d1, d2, d3)
        elif mirrored:
            _drive_two_by_any(p, q, new, drive, first)
        else:
            _drive(p, new, drive, first)


@njit(parallel=True)
def _input_parallel(g, tiles, c, e, x_old, x_new, sums, drive, low, high):
    """_input_columns, tiles of columns on all threads."""
    for k in prange(tiles):
        first, stop = g.shape[1] * k // tiles, g.shape[1] * (k + 1) // tiles
        _input_columns(g, first, stop, c, e, x_old, x_new, sums, drive, low, high)


@njit(fastmath=_FAST)
def _add_slopes(slope, p, i, q):
    """slope += sum_b p[b, i] q[b]."""
    b = 0
    while b + 4 <= p.shape[0]:
        p0, p1, p2, p3 = p[b, i], p[b + 1, i], p[b + 2, i], p[b + 3, i]
        for j in range(slope.size):
            slope[j] += p0 * q[b, j] + p1 * q[b + 1, j] + p2 * q[b + 2, j] + p3 * q[b + 3, j]
        b += 4
    while b < p.shape[0]:
        for j in range(slope.size):
            slope[j] += p[b, i] * q[b, j]
        b += 1


@njit(fastmath=_FAST)
def _less_own(own, mu, v, size):
    """own -= sum over steps and samples of mu v, from the tapes of a layer."""
    for b in range(mu.shape[0]):
        for j in range(own.size):
            own[j] -= mu[b, j] * v[size + b, j]


@njit(fastmath=_FAST)
def _turn_back(g, first, stop, factor, size, seen, own, slope, mu_row, v_row, mu_col, v_col, low, high):
    """Rows first:stop of a crossbar: g <- clip(g - factor dC/dg, low, high), from the tapes of its layers.

    dC/dg = sum over steps and samples of mu_row (v_col - v_row) for steps of the rows, of mu_col (v_row - v_col) for
    steps of the columns. The rows' steps used the columns' voltages from row `seen` of the tape on, the columns' steps
    the rows' voltages from row B - seen on. `own` (columns,) comes from _less_own, `slope` (columns,) is scratch.
    """
    count, cols = mu_row.shape[0], g.shape[1]
    seen_by_rows, seen_by_cols = v_col[seen : seen + count], v_row[size - seen : size - seen + count]
    for i in range(first, stop):
        mine = g.dtype.type(0)
        for b in range(count):
            mine -= mu_row[b, i] * v_row[size + b, i]
        for j in range(cols):
            slope[j] = own[j] + mine
        _add_slopes(slope, mu_row, i, seen_by_rows)
        _add_slopes(slope, seen_by_cols, i, mu_col)
        for j in range(cols):
            g[i, j] = min(max(g[i, j] - factor * slope[j], low), high)


@njit(fastmath=_FAST)
def _update_rows(
    g, first, stop, mode, factor, seen, d_row, t_row, d_col, t_col, row_sums, col_sums, feeds, v_row, s_col, low, high
):
    """Rows first:stop of a crossbar between free layers.

    g <- clip(g - factor x sum_b (d_row - d_col) (t_row - t_col), low, high) for the update that is pending (d: delta,
    t: total; mode BACK: tapes of mu and of voltages, see _turn_back; FREE: none is pending). Then g is summed by row
    and by column; where `feeds`, the rows' voltages are added into the columns' currents.
    """
    size = s_col.shape[0]
    zero = g.dtype.type(0)
    n = g.shape[1]
    own, room = np.zeros(n, g.dtype), np.empty(n, g.dtype)
    if mode == BACK:
        _less_own(own, d_col, t_col, size)
    for block in range(first, stop, _BLOCK):
        rows = min(_BLOCK, stop - block)
        if mode == BACK:
            _turn_back(
                g, block, block + rows, factor, size, seen, own, room, d_row, t_row, d_col, t_col, low, high
            )  # fmt: skip
        for i in range(block, block + rows):
            if mode in (DIFFERENCE, PLAIN) and size == 4:
                d0, d1, d2, d3 = d_row[0, i], d_row[1, i], d_row[2, i], d_row[3, i]
                t0, t1, t2, t3 = t_row[0, i], t_row[1, i], t_row[2, i], t_row[3, i]
                for j in range(n):
                    slope = (d0 - d_col[0, j]) * (t0 - t_col[0, j]) + (d1 - d_col[1, j]) * (t1 - t_col[1, j])
                    slope += (d2 - d_col[2, j]) * (t2 - t_col[2, j]) + (d3 - d_col[3, j]) * (t3 - t_col[3, j])
                    g[i, j] = min(max(g[i, j] - factor * slope, low), high)
            elif mode in (DIFFERENCE, PLAIN):
                for j in range(n):
                    slope = zero
                    for b in range(size):
                        slope += (d_row[b, i] - d_col[b, j]) * (t_row[b, i] - t_col[b, j])
                    g[i, j] = min(max(g[i, j] - factor * slope, low), high)
            total = zero
            for j in range(n):
                total += g[i, j]
                col_sums[j] += g[i, j]
            row_sums[i] += total
        if feeds:
            _add(g, block, rows, v_row, size, s_col)


@njit(parallel=True)
def _update_parallel(
    g, mode, factor, seen, d_row, t_row, d_col, t_col, row_sums, col_sums, feeds, v_row, s_col, low, high, n_parts,
    parts,
):  # fmt: skip
    """_update_rows, each part of the rows on its own thread, into sums of its own."""
    rows, cols = g.shape
    count = s_col.shape[0] + 1
    for k in prange(n_parts):
        part = parts[k * count * cols : (k + 1) * count * cols].reshape(count, cols)
        _clear(part)
        first, stop = _part(rows, k, n_parts)
        _update_rows(
            g, first, stop, mode, factor, seen, d_row, t_row, d_col, t_col, row_sums, part[count - 1], feeds, v_row,
            part[: count - 1], low, high,
        )  # fmt: skip
    for k in range(n_parts):
        part = parts[k * count * cols : (k + 1) * count * cols].reshape(count, cols)
        for j in range(cols):
            col_sums[j] += part[count - 1, j]
        for b in range(count - 1):
            for j in range(cols):
                s_col[b, j] += part[b, j]


@njit(nogil=True)
def _prepare(
    n, u, where, g, v, s, base, size, a, bias, delta, total, x_old, x_new, rates, g_min, g_max, mode, feeds, c, e,
    n_parts, parts,
):  # fmt: skip
    """Finish the update that is pending; compute the sums a and bases of all layers, and their s from the odd layers.

    mode: of the update, FREE when none is pending; BACK: delta and total are the tapes of mu and of the voltages.
    c, e: scratch, the terms of the input crossbar's update (_input_columns). feeds: whether s is needed.
    """
    depth = n.size - 1
    _clear(a)
    scale = g.dtype.type(1.0 / size)
    half = g.dtype.type(0.5)
    units = n[1]
    d_rows, t_rows = delta.size // bias.size, total.size // bias.size
    d, t = _layer(delta, u, _FIRST, n, d_rows), _layer(total, u, _FIRST, n, t_rows)
    factor = rates[0] * scale
    _clear(c)
    _clear(e)
    for b in range(d_rows if mode != FREE else 0):
        for j in range(units):
            if mode == BACK:
                c[j] -= factor * d[b, j] * t[size + b, j]
                e[b % size, j] -= factor * d[b, j]
            else:
                c[j] += factor * half * d[b, j] * t[b, j]
                e[b, j] = factor * d[b, j]
    base_0 = _layer(base, u, _FIRST, n, size)
    _clear(base_0)
    matrix = g[: n[0] * units].reshape(n[0], units)
    tiles = max(1, units // _TILE)
    if tiles > 1 and n_parts > 1:
        _input_parallel(matrix, tiles, c, e, x_old, x_new, a[:units], base_0, g_min[0], g_max[0])
    else:
        for k in range(tiles):
            first, stop = units * k // tiles, units * (k + 1) // tiles
            _input_columns(matrix, first, stop, c, e, x_old, x_new, a[:units], base_0, g_min[0], g_max[0])
    for k in range(depth):
        own_base, own_s = _layer(base, u, k, n, size), _layer(s, u, k, n, 2 * size)
        for b in range(size):
            for j in range(n[k + 1]):
                own_base[b, j] = bias[u[k] + j] + own_base[b, j] if k == 0 else bias[u[k] + j]
                own_s[b, j] = own_base[b, j]
    for k in range(depth):
        m, other = _crossbar_of_rows(k, depth)
        if m < 0:
            continue
        rows, cols = n[k + 1], n[other + 1]
        matrix = g[where[m] : where[m] + rows * cols].reshape(rows, cols)
        d_row, t_row = _layer(delta, u, k, n, d_rows), _layer(total, u, k, n, t_rows)
        d_col, t_col = _layer(delta, u, other, n, d_rows), _layer(total, u, other, n, t_rows)
        row_sums, col_sums = a[u[k] : u[k] + rows], a[u[other] : u[other] + cols]
        s_col, v_row = _layer(s, u, other, n, 2 * size)[:size], _layer(v, u, k, n, 2 * size)
        factor = rates[m] * scale if mode == BACK else half * rates[m] * scale
        seen = size if k % 2 == 1 else 0  # odd layers step after even ones
        if n_parts > 1 and rows * cols >= _PARALLEL:
            _update_parallel(
                matrix, mode, factor, seen, d_row, t_row, d_col, t_col, row_sums, col_sums, feeds and k % 2 == 1,
                v_row, s_col, g_min[m], g_max[m], n_parts, parts,
            )  # fmt: skip
        else:
            _update_rows(
                matrix, _FIRST, rows, mode, factor, seen, d_row, t_row, d_col, t_col, row_sums, col_sums,
                feeds and k % 2 == 1, v_row, s_col, g_min[m], g_max[m],
            )  # fmt: skip


# -- back-propagation --------------------------------------------------------------------------------------------------


@njit(nogil=True)
def _keep(source, at, target, to, n, u, size):
    """Copy B rows of each layer, from row `at` of its block in one flat array to row `to` of that in another."""
    units = u[-1] + n[-1]
    for k in range(u.size):
        old = _layer(source, u, k, n, source.size // units)[at : at + size]
        new = _layer(target, u, k, n, target.size // units)[to : to + size]
        for b in range(size):
            for j in range(n[k + 1]):
                new[b, j] = old[b, j]


@njit(nogil=True)
def _there_and_back(n, u, where, g, v, s, base, size, a, lo, hi, t, zeros, n_parts, parts, tape_v, tape_mu):
    """Take the sweeps that are back-propagated through, from the free state v, which changes; then their adjoint steps.

    lambda of the outputs begins as y - t. During the adjoint steps v holds mu, and below it the voltages of one sweep.
    """
    zero = a.dtype.type(0)
    depth, sweeps = u.size, tape_mu.size // base.size
    _keep(v, _FIRST, tape_v, _FIRST, n, u, size)
    for time in range(1, sweeps + 1):
        _sweep(np.int64(FREE), n, u, where, g, v, s, base, size, a, lo, hi, t, zero, zero, zeros, n_parts, parts)
        _keep(v, _FIRST, tape_v, time * size, n, u, size)
    y = _layer(v, u, depth - 1, n, 2 * size)
    _clear(s)
    lam = _layer(s, u, depth - 1, n, 2 * size)
    for b in range(size):
        for j in range(t.shape[1]):
            lam[b, j] = y[b, j] - t[b, j]
    _clear(v)
    for time in range(sweeps, 0, -1):
        _keep(tape_v, time * size, v, size, n, u, size)
        _sweep(np.int64(BACK), n, u, where, g, v, s, base, size, a, lo, hi, t, zero, zero, zeros, n_parts, parts)
        _keep(v, _FIRST, tape_mu, (time - 1) * size, n, u, size)
    _keep(tape_v, sweeps * size, v, _FIRST, n, u, size)


# -- a run of steps ----------------------------------------------------------------------------------------------------


@njit(nogil=True)
def _load(features, row, b, scale, x):
    """Column b of x (features, B): the scaled features of a sample."""
    for i in range(x.shape[0]):
        x[i, b] = features[row, i] * scale


@njit(nogil=True)
def _begin_nudged(mode, v, s, n, u, size):
    """Set rows B: of v and s to where the nudged sweeps begin: the free state, or in difference form delta = 0."""
    zero = v.dtype.type(0)
    for k in range(u.size):
        state, s_k = _layer(v, u, k, n, 2 * size), _layer(s, u, k, n, 2 * size)
        for b in range(size):
            for j in range(n[k + 1]):
                state[size + b, j] = state[b, j] if mode == PLAIN else zero
                s_k[size + b, j] = s_k[b, j] if mode == PLAIN else zero


@njit(nogil=True)
def _fields_and_biases(mode, v, delta, total, bias, bias_rates, scale, gap, n, u, size):
    """For the next update: delta, the difference of the nudged states v over `gap`, and total, their sum.

    The biases are updated here.
    """
    for k in range(u.size):
        state, d, both = _layer(v, u, k, n, 2 * size), _layer(delta, u, k, n, size), _layer(total, u, k, n, size)
        for b in range(size):
            for j in range(n[k + 1]):
                if mode == PLAIN:
                    d[b, j] = (state[b, j] - state[size + b, j]) / gap
                    both[b, j] = state[b, j] + state[size + b, j]
                else:
                    d[b, j] = state[size + b, j]
                    both[b, j] = state[b, j] + state[b, j] - gap * d[b, j]
                bias[u[k] + j] += bias_rates[k] * scale * d[b, j]


@njit(nogil=True)
def _learn_biases_back(tape_mu, bias, bias_rates, scale, n, u, rows):
    """Update the biases by the sums of mu over the rows of the tape."""
    for k in range(u.size):
        mu = _layer(tape_mu, u, k, n, rows)
        for j in range(n[k + 1]):
            slope = bias.dtype.type(0)
            for b in range(rows):
                slope += mu[b, j]
            bias[u[k] + j] -= bias_rates[k] * scale * slope


@njit(nogil=True)
def _measure(y, t, size, tally):
    """Cost and errors of the free state: tally[0] += sum of C, tally[1] += wrong answers."""
    for b in range(size):
        best = wanted = 0
        for k in range(t.shape[1]):
            tally[0] += 0.5 * (np.float64(y[b, k]) - np.float64(t[b, k])) ** 2
            if y[b, k] > y[b, best]:
                best = k
            if t[b, k] > t[b, wanted]:
                wanted = k
        tally[1] += best != wanted


@jit(small=0)
def steps(
    features, unit_volts, targets, order, sweeps, mode, n, u, where, g, bias, lo, hi, rates, bias_rates, g_min, g_max,
    beta1, beta2, v, free, delta, total, n_parts, tally,
):  # fmt: skip
    """One step for every B rows of `order`; returns OK, or why it stopped and the unit (NOT_CONVEX: output) concerned.

    n (L + 1,) sizes; u (L,) and where (L,) first unit of a layer, first entry of a crossbar; g, bias, lo, hi flat;
    rates, bias_rates (L,); g_min, g_max (L,) S bounds of each crossbar's g; v (2B units) the state between steps in its
    first B rows of each layer; free, delta, total (B units) what the last step measured (mode BACK: free alone); tally:
    sum of costs, wrong answers.
    """
    depth = n.size - 1
    size = free.size // bias.size
    dtype = g.dtype
    units = bias.size
    most = 0
    for k in range(depth):
        most = max(most, n[k + 1])
    s, base, a = np.zeros(2 * size * units, dtype), np.zeros(size * units, dtype), np.zeros(units, dtype)
    x_old, x_new = np.zeros((features.shape[1], size), dtype), np.zeros((features.shape[1], size), dtype)
    zeros = np.zeros((2 * size, most), dtype)
    parts = np.zeros(n_parts * (2 * size + 1) * most if n_parts > 1 else 0, dtype)
    c, e = np.zeros(n[1], dtype), np.zeros((size, n[1]), dtype)
    times = sweeps if mode == BACK else 0
    tape_v, tape_mu = np.zeros((times + 1) * size * units, dtype), np.zeros(times * size * units, dtype)
    fields, totals = (tape_mu, tape_v) if mode == BACK else (delta, total)  # what an update is computed from
    t = np.zeros((size, n[depth]), dtype)
    gap = beta1 - beta2
    scale = dtype.type(1.0 / size)
    pending = False
    count = order.size // size
    status, unit = OK, 0
    for step in range(count + 1):
        x_old, x_new = x_new, x_old
        last = step == count
        if not last:
            for b in range(size):
                row = order[step * size + b]
                _load(features, row, b, unit_volts, x_new)
                for k in range(t.shape[1]):
                    t[b, k] = targets[row, k]
        _prepare(
            n, u, where, g, v, s, base, size, a, bias, fields, totals, x_old, x_new, rates, g_min, g_max,
            mode if pending else np.int64(FREE), not last, c, e, n_parts, parts,
        )  # fmt: skip
        if last:
            break
        pending = False
        for j in range(units):
            if a[j] <= 0:
                status, unit = CUT_OFF, j
        for k in range(n[depth] if status == OK else 0):
            if a[u[depth - 1] + k] + min(beta1, beta2) <= 0:
                status, unit = NOT_CONVEX, k
        if status != OK:
            break
        for _ in range(sweeps):
            _sweep(np.int64(FREE), n, u, where, g, v, s, base, size, a, lo, hi, t, beta1, beta2, zeros, n_parts, parts)
        _measure(_layer(v, u, depth - 1, n, 2 * size), t, size, tally)
        if not np.isfinite(tally[0]):
            status = NOT_FINITE
            break
        _keep(v, _FIRST, free, _FIRST, n, u, size)
        if mode == BACK:
            _there_and_back(
                n, u, where, g, v, s, base, size, a, lo, hi, t, zeros, n_parts, parts, tape_v, tape_mu
            )  # fmt: skip
            _learn_biases_back(tape_mu, bias, bias_rates, scale, n, u, sweeps * size)
            pending = True
            continue
        _begin_nudged(mode, v, s, n, u, size)
        for _ in range(sweeps):
            _sweep(mode, n, u, where, g, v, s, base, size, a, lo, hi, t, beta1, beta2, zeros, n_parts, parts)
        _fields_and_biases(mode, v, delta, total, bias, bias_rates, scale, gap, n, u, size)
        pending = True
    return status, unit


def smallest(dtype: str, features: str) -> tuple:
    """Arguments of `steps` with these types, for a network of three units and no sample: nothing is computed."""
    scalar = np.dtype(dtype).type
    flat = [np.zeros(size, dtype) for size in (4, 3, 3, 3, 2, 2, 2, 2, 6, 3, 3, 3)]
    g, bias, lo, hi, rates, bias_rates, g_min, g_max, v, free, delta, total = flat
    n, u, where = np.array([1, 2, 1]), np.array([0, 2]), np.array([0, 2, 4])
    none = np.zeros(0, np.int64)
    return (
        np.zeros((1, 1), features), scalar(1), np.zeros((1, 1), np.float32), none, 1, DIFFERENCE, n, u, where, g, bias,
        lo, hi, rates, bias_rates, g_min, g_max, scalar(0), scalar(0), v, free, delta, total, 1, np.zeros(2),
    )  # fmt: skip


def make_ready(dtype: str, features: str) -> None:
    """See to it that `steps` for these types is on disk, so that every process runs the same machine code."""
    arguments = smallest(dtype, features)
    if on_disk(steps, *arguments):
        return
    print("compiling the training step, once on this machine: about half a minute ...", file=sys.stderr, flush=True)
    code = f"from training import kernels; kernels.steps(*kernels.smallest({dtype!r}, {features!r}))"
    compile_apart(code, Path(__file__).parent.parent)
