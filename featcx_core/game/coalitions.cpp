// Totals over places of relu(residual + Σ of a subset of the components), for all subsets, each sample read once, and a
// linear layer of them.
//
// A channel's components lie in the first-level cache. Sums over subsets of the later components are kept there; those
// of the first LOW are formed in registers by doubling, and so are their totals. The vector extensions are those of GCC
// and Clang, at the width that -march=native gives.

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>
#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LOW = 4;
#elif defined(__AVX__)
constexpr int LOW = 3;
#else
constexpr int LOW = 2;
#endif
constexpr int LANES = 1 << LOW;  // one vector holds a total of each subset; twice as many fit the registers
constexpr int PLAYERS = 8;       // at most, as many as ROOT in coalitions.py
constexpr int CHUNK = 64 / LANES;  // vectors of places at a time
constexpr int64_t AHEAD = 512;     // floats in front of what is read, asked for early

typedef float Vector __attribute__((vector_size(4 * LANES)));

// In this order of the operands a NaN stays one.
[[gnu::always_inline]] inline Vector relu(Vector x) {
#if defined(__AVX512F__)
    return _mm512_max_ps(_mm512_setzero_ps(), x);
#elif defined(__AVX__)
    return _mm256_max_ps(_mm256_setzero_ps(), x);
#else
    return Vector{} > x ? Vector{} : x;
#endif
}

// Adds relu(sum + Σ of a subset of the first `players` parts) to the subset's total; the first one begins the totals.
template <bool first, int players>
[[gnu::always_inline]] inline void add_subsets(Vector sum, const Vector *parts, Vector *totals) {
    if constexpr (players == 0) {
        *totals = first ? relu(sum) : *totals + relu(sum);
    } else {
        constexpr int last = players - 1;
        add_subsets<first, last>(sum, parts, totals);
        add_subsets<first, last>(sum + parts[last * CHUNK], parts, totals + (1 << last));
    }
}

// Two vectors of blocks of `width` partial totals: the halves of every block added, the blocks of both in turn.
template <int width, int... lane>
[[gnu::always_inline]] inline Vector merge(Vector a, Vector b, std::integer_sequence<int, lane...>) {
    constexpr int half = width / 2;
    return __builtin_shufflevector(a, b, (lane / half % 2 * LANES + lane / width * width + lane % half)...) +
           __builtin_shufflevector(a, b, (lane / half % 2 * LANES + lane / width * width + lane % half + half)...);
}

// The totals of LANES vectors, as one vector.
template <int count = LANES>
[[gnu::always_inline]] inline Vector totals_of(Vector *vectors) {
    if constexpr (count == 1) {
        return vectors[0];
    } else {
        for (int i = 0; i < count / 2; i++)
            vectors[i] = merge<count>(vectors[i], vectors[i + count / 2], std::make_integer_sequence<int, LANES>());
        return totals_of<count / 2>(vectors);
    }
}

// One channel's components at CHUNK vectors of places.
struct Channel {
    Vector lower[LOW * CHUNK] = {};             // the first components; zeros where there are fewer
    Vector upper[1 << (PLAYERS - LOW)][CHUNK];  // residual + Σ of each subset of the others

    // At soon[i] + offset lies what is read of part i a little later.
    void read(const float *const *parts, const float *const *soon, int players, int64_t offset, int64_t left) {
        const auto take = [&](int i, Vector *to) { copy(parts[i] + offset, soon[i] + offset, left, to); };
        for (int i = 0; i < players && i < LOW; i++) take(i, lower + i * CHUNK);
        take(players, upper[0]);
        Vector part[CHUNK];
        for (int i = LOW, count = 1; i < players; i++, count *= 2) {
            take(i, part);
            for (int s = 0; s < count; s++)
                for (int v = 0; v < CHUNK; v++) upper[count + s][v] = upper[s][v] + part[v];
        }
    }

    // Behind the last place stand zeros, which add nothing to a total.
    [[gnu::always_inline]] static inline void copy(const float *from, const float *soon, int64_t left, Vector *to) {
        if (left >= CHUNK * LANES) {
            for (int64_t v = 0; v < CHUNK; v++) __builtin_prefetch(soon + v * LANES);
            std::memcpy(to, from, sizeof(Vector) * CHUNK);
        } else {
            std::memset(to, 0, sizeof(Vector) * CHUNK);
            std::memcpy(to, from, sizeof(float) * left);
        }
    }

    [[gnu::always_inline]] inline Vector totals(int64_t block) const {
        Vector sums[LANES];
        add_subsets<true, LOW>(upper[block][0], lower, sums);
        for (int v = 1; v < CHUNK; v++) add_subsets<false, LOW>(upper[block][v], lower + v, sums);
        return totals_of(sums);
    }
};

// Of one sample, whose parts' channels × places lie at `parts` and the next sample's `strides` behind: channels ×
// 2^players, at least LANES of them.
[[gnu::noinline]] void sample_totals(const float *const *parts, const int64_t *strides, int players, int64_t channels,
                                     int64_t places, Vector *totals) {
    const int64_t blocks = players > LOW ? int64_t(1) << (players - LOW) : 1, size = channels * places;
    const float *soon[PLAYERS + 1], *next[PLAYERS + 1];
    for (int i = 0; i <= players; i++) {
        soon[i] = parts[i] + AHEAD;
        next[i] = soon[i] + strides[i] - size;
    }
    Channel channel;
    for (int64_t c = 0; c < channels; c++, totals += blocks) {
        for (int64_t p = 0; p < places; p += CHUNK * LANES) {
            const int64_t offset = c * places + p;
            channel.read(parts, offset + AHEAD < size ? soon : next, players, offset, places - p);
            for (int64_t s = 0; s < blocks; s++) totals[s] = p > 0 ? totals[s] + channel.totals(s) : channel.totals(s);
        }
    }
}

// out[k] = bias[k] + Σ over channels of weight[k] · totals[channel], for so many rows k; one block of LANES subsets.
template <int rows>
[[gnu::always_inline]] inline void linear(const Vector *totals, int64_t channels, int64_t blocks, const float *weight,
                                          const float *bias, float *out, int64_t stride, int64_t kept) {
    Vector sums[rows];
    for (int k = 0; k < rows; k++) sums[k] = Vector{} + bias[k];
    for (int64_t c = 0; c < channels; c++)
        for (int k = 0; k < rows; k++) sums[k] += weight[k * channels + c] * totals[c * blocks];
    for (int k = 0; k < rows; k++) std::memcpy(out + k * stride, &sums[k], sizeof(float) * kept);
}

}  // namespace

// The channels × places of sample n of part i lie at parts[i] + n·strides[i]; the parts are the components and the
// residual. Without a weight `out` takes the totals, channels × samples × 2^players, the first component's bit lowest;
// with weight (classes × channels) and bias (classes) the layer's outputs, classes × samples × 2^players.
extern "C" void relu_totals(const float *const *parts, const int64_t *strides, int64_t players, int64_t samples,
                            int64_t channels, int64_t places, const float *weight, const float *bias, int64_t classes,
                            int64_t threads, float *out) {
    const int64_t subsets = int64_t(1) << players, kept = subsets < LANES ? subsets : LANES;
    const int64_t blocks = (subsets + LANES - 1) / LANES, stride = samples * subsets;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        std::vector<Vector> totals(channels * blocks);
#pragma omp for schedule(static)
        for (int64_t n = 0; n < samples; n++) {
            const float *sample[PLAYERS + 1];
            for (int64_t i = 0; i <= players; i++) sample[i] = parts[i] + n * strides[i];
            sample_totals(sample, strides, int(players), channels, places, totals.data());
            for (int64_t s = 0; s < blocks; s++) {
                float *to = out + n * subsets + s * LANES;
                int64_t k = 0;
                if (!weight)
                    for (; k < channels; k++) std::memcpy(to + k * stride, &totals[k * blocks + s], sizeof(float) * kept);
                for (; k + 5 <= classes; k += 5)
                    linear<5>(&totals[s], channels, blocks, weight + k * channels, bias + k, to + k * stride, stride, kept);
                for (; k < classes; k++)
                    linear<1>(&totals[s], channels, blocks, weight + k * channels, bias + k, to + k * stride, stride, kept);
            }
        }
    }
}
