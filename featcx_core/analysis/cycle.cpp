// Steps of the cycle's Adam on matrices of channels (reliability.py: fit_cycle), all in the first- and second-level cache.
//
// Matrices are padded with zeros to whole vectors; what is padded stays zero. The vector extensions are those of GCC and
// Clang, at the width that -march=native gives.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int ROWS = 8, COLUMNS = 2;  // of a block of the product, whose sums fit the registers; columns are vectors
constexpr int64_t PADDING = COLUMNS * LANES;

typedef float Vector __attribute__((vector_size(4 * LANES)));

struct Matrix {
    int64_t rows, columns;
    std::vector<Vector> cells;
    Matrix(int64_t r, int64_t c) : rows(pad(r)), columns(pad(c)), cells(rows * columns / LANES) {}
    static int64_t pad(int64_t n) {
        const int64_t unit = PADDING > ROWS ? PADDING : ROWS;
        return (n + unit - 1) / unit * unit;
    }
    float *data() { return reinterpret_cast<float *>(cells.data()); }
    const float *data() const { return reinterpret_cast<const float *>(cells.data()); }
    void read(const float *from, int64_t r, int64_t c) {
        for (int64_t i = 0; i < r; i++) std::memcpy(data() + i * columns, from + i * c, sizeof(float) * c);
    }
    void write(float *to, int64_t r, int64_t c) const {
        for (int64_t i = 0; i < r; i++) std::memcpy(to + i * c, data() + i * columns, sizeof(float) * c);
    }
    void read_transposed(const float *from, int64_t r, int64_t c) {
        for (int64_t i = 0; i < r; i++)
            for (int64_t j = 0; j < c; j++) data()[j * columns + i] = from[i * c + j];
    }
};

// to = a · b
[[gnu::noinline]] void multiply(const Matrix &a, const Matrix &b, Matrix &to) {
    const int64_t inner = a.columns, width = b.columns / LANES;
    for (int64_t i = 0; i < a.rows; i += ROWS)
        for (int64_t j = 0; j < width; j += COLUMNS) {
            Vector sums[ROWS][COLUMNS] = {};
            const float *left = a.data() + i * inner;
            const Vector *right = b.cells.data() + j;
            for (int64_t k = 0; k < inner; k++, right += width)
                for (int r = 0; r < ROWS; r++)
                    for (int c = 0; c < COLUMNS; c++) sums[r][c] += left[r * inner + k] * right[c];
            for (int r = 0; r < ROWS; r++)
                for (int c = 0; c < COLUMNS; c++) to.cells[(i + r) * width + j + c] = sums[r][c];
        }
}

void transpose(const Matrix &a, Matrix &to) {
    for (int64_t i = 0; i < a.rows; i++)
        for (int64_t j = 0; j < a.columns; j++) to.data()[j * to.columns + i] = a.data()[i * a.columns + j];
}

}  // namespace

// `steps` steps of round r + 1, in place: h, mean and square are nets × channels × width, g nets × width × channels, sigma
// channels × channels; `done` steps came before, `rate` is the learning rate.
extern "C" void cycle_steps(float *h, float *mean, float *square, const float *g, const float *sigma, int64_t nets,
                            int64_t channels, int64_t width, int64_t r, int64_t steps, int64_t done, double rate,
                            double first, double second, double epsilon) {
    const int64_t size = channels * width;
    std::vector<Matrix> maps, means, squares, there, back, both;
    for (int64_t k = 0; k < nets; k++) {
        maps.emplace_back(channels, width), means.emplace_back(channels, width), squares.emplace_back(channels, width);
        there.emplace_back(width, channels), back.emplace_back(channels, width), both.emplace_back(channels, channels);
        maps[k].read(h + k * size, channels, width);
        means[k].read(mean + k * size, channels, width);
        squares[k].read(square + k * size, channels, width);
        there[k].read(g + k * size, width, channels);
        back[k].read_transposed(g + k * size, width, channels);
    }
    Matrix moment(channels, channels), start(channels, channels), power(channels, channels), root(channels, channels),
        spare(channels, channels), turned(channels, channels), slope(channels, width);
    start.read(sigma, channels, channels);
    for (int64_t step = 1; step <= steps; step++) {
        for (int64_t k = 0; k < nets; k++) multiply(maps[k], there[k], both[k]);
        const Matrix *used = &start;
        if (r > 0) {
            for (size_t i = 0; i < power.cells.size(); i++) {
                Vector sum = both[0].cells[i];
                for (int64_t k = 1; k < nets; k++) sum += both[k].cells[i];
                power.cells[i] = sum / float(nets);
            }
            bool begun = false;
            for (int64_t left = r; left; left >>= 1) {
                if (left & 1) {
                    if (begun) {
                        multiply(root, power, spare);
                        std::swap(root.cells, spare.cells);
                    } else {
                        root.cells = power.cells;
                    }
                    begun = true;
                }
                if (left > 1) {
                    multiply(power, power, spare);
                    std::swap(power.cells, spare.cells);
                }
            }
            transpose(root, turned);
            multiply(root, start, spare);
            multiply(spare, turned, moment);
            used = &moment;
        }
        const double time = double(done + step);
        const float move = float(-rate / (1 - std::pow(first, time))), spread = float(std::sqrt(1 - std::pow(second, time)));
        const float keep = float(second), fresh = float(1 - second), part = float(1 - first), tiny = float(epsilon);
        for (int64_t k = 0; k < nets; k++) {
            for (int64_t i = 0; i < channels; i++) both[k].data()[i * both[k].columns + i] -= 1;
            multiply(both[k], *used, spare);
            multiply(spare, back[k], slope);
            float *value = maps[k].data(), *m = means[k].data(), *s = squares[k].data();
            const float *gradient = slope.data(), scale = 2 / float(channels);
            const int64_t all = maps[k].rows * maps[k].columns;
            for (int64_t i = 0; i < all; i++) {
                const float d = gradient[i] * scale;
                m[i] += part * (d - m[i]);
                s[i] = s[i] * keep + fresh * d * d;
                value[i] += move * m[i] / (std::sqrt(s[i]) / spread + tiny);
            }
        }
    }
    for (int64_t k = 0; k < nets; k++) {
        maps[k].write(h + k * size, channels, width);
        means[k].write(mean + k * size, channels, width);
        squares[k].write(square + k * size, channels, width);
    }
}
