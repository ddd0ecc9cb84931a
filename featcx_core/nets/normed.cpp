// relu(BatchNorm(x) + shortcut) of rows × channels (channels last) and its gradient: two passes over memory each way.
//
// Sums over rows are taken in blocks of ROWS and these are added in order, so that the digits do not depend on threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t ROWS = 256;  // a block; at 128 channels it stays in the second-level cache between two chunks
constexpr int AHEAD = 4;       // rows whose sums are kept apart, so that no addition waits for the one before

struct Brain {  // bfloat16
    uint16_t bits;
};

typedef float Float8 __attribute__((vector_size(32)));
typedef float Float16 __attribute__((vector_size(64)));
typedef uint32_t Bits8 __attribute__((vector_size(32)));
typedef uint32_t Bits16 __attribute__((vector_size(64)));
typedef uint16_t Half8 __attribute__((vector_size(16)));
typedef uint16_t Half16 __attribute__((vector_size(32)));

template <class Float> [[gnu::always_inline]] inline Float load(const float *from) {
    Float value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class Float> [[gnu::always_inline]] inline void store(Float value, float *to) {
    std::memcpy(to, &value, sizeof value);
}

// GCC converts no vectors whose type depends on a template's parameter.
[[gnu::always_inline]] inline Bits8 widened(Half8 half) { return __builtin_convertvector(half, Bits8); }
[[gnu::always_inline]] inline Bits16 widened(Half16 half) { return __builtin_convertvector(half, Bits16); }
[[gnu::always_inline]] inline Half8 narrowed(Bits8 bits) { return __builtin_convertvector(bits, Half8); }
[[gnu::always_inline]] inline Half16 narrowed(Bits16 bits) { return __builtin_convertvector(bits, Half16); }
template <class Float> struct Of;
template <> struct Of<Float8> { typedef Bits8 Bits; typedef Half8 Half; };
template <> struct Of<Float16> { typedef Bits16 Bits; typedef Half16 Half; };

template <class Float> [[gnu::always_inline]] inline Float load(const Brain *from) {
    typename Of<Float>::Half half;
    std::memcpy(&half, from, sizeof half);
    return (Float)(widened(half) << 16);
}

template <class Float> [[gnu::always_inline]] inline void store(Float value, Brain *to) {
    typedef typename Of<Float>::Bits Bits;
    const Bits bits = (Bits)value, nan = Bits{} + 0x7fc0;
    Bits rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;  // to nearest, ties to even
    rounded = value == value ? rounded : nan;
    const auto half = narrowed(rounded);
    std::memcpy(to, &half, sizeof half);
}

// Sums two quantities over all rows, a channel each: add(row, channel, a, b) adds those of one row and some channels.
template <class Float, class Add>
void sums(int64_t rows, int64_t channels, int64_t threads, double *first, double *second, Add add) {
    constexpr int L = sizeof(Float) / 4;
    const int64_t blocks = (rows + ROWS - 1) / ROWS;
    std::vector<float> parts(2 * blocks * channels);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < blocks; block++) {
        const int64_t end = std::min(rows, (block + 1) * ROWS);
        for (int64_t c = 0; c < channels; c += L) {
            Float a[AHEAD] = {}, b[AHEAD] = {};
            int64_t row = block * ROWS;
            for (; row + AHEAD <= end; row += AHEAD)
                for (int k = 0; k < AHEAD; k++) add(row + k, c, a[k], b[k]);
            for (; row < end; row++) add(row, c, a[0], b[0]);
            for (int k = 1; k < AHEAD; k++) a[0] += a[k], b[0] += b[k];
            std::memcpy(&parts[2 * block * channels + c], &a[0], sizeof(Float));
            std::memcpy(&parts[(2 * block + 1) * channels + c], &b[0], sizeof(Float));
        }
    }
    std::fill(first, first + channels, 0.0), std::fill(second, second + channels, 0.0);
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t c = 0; c < channels; c++) {
            first[c] += parts[2 * block * channels + c];
            second[c] += parts[(2 * block + 1) * channels + c];
        }
}

template <class T, class Float>
void forward(const T *x, const T *shortcut, const float *weight, const float *bias, int64_t rows, int64_t channels,
             double eps, int64_t threads, float *mean, float *var, T *y) {
    constexpr int L = sizeof(Float) / 4;
    std::vector<double> one(channels), two(channels);
    std::vector<float> first(channels), a(channels), b(channels);
    for (int64_t c = 0; c < channels; c += L) store<Float>(load<Float>(x + c), &first[c]);  // shifts against cancellation
    sums<Float>(rows, channels, threads, one.data(), two.data(), [&](int64_t row, int64_t c, Float &s, Float &q) {
        const Float d = load<Float>(x + row * channels + c) - load<Float>(&first[c]);
        s += d;
        q += d * d;
    });
    for (int64_t c = 0; c < channels; c++) {
        const double shift = one[c] / rows;
        mean[c] = float(first[c] + shift);
        var[c] = float(std::max(0.0, two[c] / rows - shift * shift));
        a[c] = float(weight[c] / std::sqrt(double(var[c]) + eps));
        b[c] = bias[c] - mean[c] * a[c];
    }
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t c = 0; c < channels; c += L) {
            Float value = load<Float>(x + row * channels + c) * load<Float>(&a[c]) + load<Float>(&b[c]);
            if (shortcut) value += load<Float>(shortcut + row * channels + c);
            store<Float>(value <= Float{} ? Float{} : value, y + row * channels + c);  // a NaN stays one
        }
}

template <class T, class Float>
void backward(const T *grad, const T *y, const T *x, const float *weight, const float *mean, const float *var,
              int64_t rows, int64_t channels, double eps, int64_t threads, T *to_x, T *to_shortcut, float *to_weight,
              float *to_bias) {
    constexpr int L = sizeof(Float) / 4;
    std::vector<double> one(channels), two(channels);
    std::vector<float> a(channels), p(channels), q(channels);
    const auto passed = [&](int64_t at) {
        const Float open = load<Float>(y + at);
        return open <= Float{} ? Float{} : load<Float>(grad + at);
    };
    sums<Float>(rows, channels, threads, one.data(), two.data(), [&](int64_t row, int64_t c, Float &s, Float &t) {
        const Float g = passed(row * channels + c);
        s += g;
        t += g * (load<Float>(x + row * channels + c) - load<Float>(&mean[c]));
    });
    for (int64_t c = 0; c < channels; c++) {
        const double inverse = 1 / std::sqrt(double(var[c]) + eps), scale = weight[c] * inverse;
        to_bias[c] = float(one[c]);
        to_weight[c] = float(two[c] * inverse);
        const double slope = -scale * inverse * inverse * two[c] / rows;
        a[c] = float(scale);
        p[c] = float(slope);
        q[c] = float(-scale * one[c] / rows - slope * mean[c]);
    }
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t c = 0; c < channels; c += L) {
            const int64_t at = row * channels + c;
            const Float g = passed(at);
            store<Float>(g * load<Float>(&a[c]) + (load<Float>(x + at) * load<Float>(&p[c]) + load<Float>(&q[c])), to_x + at);
            if (to_shortcut) store<Float>(g, to_shortcut + at);
        }
}

}  // namespace

// x, shortcut (or null) and y are rows × channels of float or, with `half`, bfloat16; channels a multiple of 8. Mean and
// biased variance a channel are given back.
extern "C" void normed_forward(const void *x, const void *shortcut, const float *weight, const float *bias, int64_t rows,
                               int64_t channels, double eps, int64_t half, int64_t threads, float *mean, float *var,
                               void *y) {
    const auto run = [&](auto type, auto lanes) {
        typedef decltype(type) T;
        forward<T, decltype(lanes)>((const T *)x, (const T *)shortcut, weight, bias, rows, channels, eps, threads,
                                           mean, var, (T *)y);
    };
    if (channels % 16)
        half ? run(Brain{}, Float8{}) : run(float{}, Float8{});
    else
        half ? run(Brain{}, Float16{}) : run(float{}, Float16{});
}

// Gradients of x, of the shortcut (or null), of weight and bias, from the gradient of y.
extern "C" void normed_backward(const void *grad, const void *y, const void *x, const float *weight, const float *mean,
                                const float *var, int64_t rows, int64_t channels, double eps, int64_t half,
                                int64_t threads, void *to_x, void *to_shortcut, float *to_weight, float *to_bias) {
    const auto run = [&](auto type, auto lanes) {
        typedef decltype(type) T;
        backward<T, decltype(lanes)>((const T *)grad, (const T *)y, (const T *)x, weight, mean, var, rows, channels,
                                            eps, threads, (T *)to_x, (T *)to_shortcut, to_weight, to_bias);
    };
    if (channels % 16)
        half ? run(Brain{}, Float8{}) : run(float{}, Float8{});
    else
        half ? run(Brain{}, Float16{}) : run(float{}, Float16{});
}
