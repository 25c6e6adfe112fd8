/* Loss and gradient of the linear Transformer with P = diag(P', 1), Q = diag(Q', 0), in Gram form.
 *
 * The yardstick for how fast one core can go; nothing in the package uses it. For one DIM and LAYERS, in
 * float32. A prompt is S = X X^T (d x d), g = X y^T (d), its query x (d) and its target; arrays stand batch
 * last, and LANES prompts go through together, one in each lane of a vector.
 * With a_l = Q_l^T g_l / n and A_l = I + P_l S_l Q_l / n:
 *
 *   x_{l+1} = A_l x_l                  y_{l+1} = y_l + a_l . x_l
 *   g_{l+1} = A_l (g_l + S_l a_l)      S_{l+1} = A_l S_l A_l^T
 *
 * loss = mean (-y_L - target)^2. A name ending in bar is an adjoint; the last layer needs only a, never P.
 */
#include <string.h>

#ifndef LANES
#define LANES 16
#endif
#define D DIM
#define L LAYERS
#define ROW for (int i = 0; i < D; i++)
#define COL for (int j = 0; j < D; j++)
#define SUM(total, term) \
    do { total = (lanes){0}; for (int m = 0; m < D; m++) total += (term); } while (0)

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef lanes matrix[D][D];
typedef lanes vector[D];
typedef const float (*shared)[D]; /* one matrix for all prompts */

static inline lanes load(const float *from) { lanes v; memcpy(&v, from, sizeof v); return v; }

static inline float across(lanes v) {
    float sum = 0;
    for (int k = 0; k < LANES; k++) sum += v[k];
    return sum;
}

/* What the forward pass leaves for the backward one, layer by layer. */
static _Thread_local matrix S[L], A[L], SQ[L], Pbar[L], Qbar[L];
static _Thread_local vector g[L], x[L], a[L], u[L];

static lanes forward(const float theta[L][2][D][D], float by_n) {
    lanes y = {0};
    matrix T;
    for (int l = 0; l < L; l++) {
        shared P = theta[l][0], Q = theta[l][1];
        ROW { lanes t; SUM(t, Q[m][i] * g[l][m]); a[l][i] = by_n * t; y += a[l][i] * x[l][i]; }
        if (l == L - 1) break;
        ROW COL { lanes t; SUM(t, S[l][i][m] * Q[m][j]); SQ[l][i][j] = by_n * t; }
        ROW COL { lanes t; SUM(t, P[i][m] * SQ[l][m][j]); A[l][i][j] = t + (float)(i == j); }
        ROW { lanes t; SUM(t, S[l][i][m] * a[l][m]); u[l][i] = g[l][i] + t; }
        ROW SUM(x[l + 1][i], A[l][i][m] * x[l][m]);
        ROW SUM(g[l + 1][i], A[l][i][m] * u[l][m]);
        ROW COL SUM(T[i][j], A[l][i][m] * S[l][m][j]);
        ROW COL SUM(S[l + 1][i][j], T[i][m] * A[l][j][m]);
    }
    return y;
}

static void backward(const float theta[L][2][D][D], float by_n, lanes ybar) {
    matrix Sbar = {0}, Abar, AS, T, V;
    vector gbar = {0}, xbar = {0}, ubar = {0}, abar, v;
    for (int l = L - 1; l >= 0; l--) {
        shared P = theta[l][0], Q = theta[l][1];
        ROW abar[i] = ybar * x[l][i];
        if (l < L - 1) {
            ROW COL SUM(AS[i][j], A[l][i][m] * S[l][m][j]);
            ROW COL { lanes t; SUM(t, Sbar[i][m] * AS[m][j]);
                      Abar[i][j] = xbar[i] * x[l][j] + gbar[i] * u[l][j] + 2.0f * t; }
            ROW SUM(ubar[i], A[l][m][i] * gbar[m]);
            ROW { lanes t; SUM(t, S[l][i][m] * ubar[m]); abar[i] += t; }
            ROW COL { lanes t; SUM(t, Abar[i][m] * SQ[l][j][m]); Pbar[l][i][j] += t; }
            ROW COL { lanes t; SUM(t, P[m][i] * Abar[m][j]); T[i][j] = by_n * t; }
            ROW COL { lanes t; SUM(t, S[l][i][m] * T[m][j]); Qbar[l][i][j] += t; }
        }
        ROW COL Qbar[l][i][j] += by_n * g[l][i] * abar[j];
        if (l == 0) break;
        ROW { lanes t; SUM(t, Q[i][m] * abar[m]); gbar[i] = ubar[i] + by_n * t; }
        if (l < L - 1) { /* above the last layer Sbar and xbar are still zero */
            ROW COL { lanes t; SUM(t, T[i][m] * Q[j][m]); V[i][j] = t + ubar[i] * a[l][j]; }
            ROW COL SUM(T[i][j], Sbar[i][m] * A[l][m][j]);
            ROW COL { lanes t; SUM(t, A[l][m][i] * T[m][j]); Sbar[i][j] = t + 0.5f * (V[i][j] + V[j][i]); }
            ROW SUM(v[i], A[l][m][i] * xbar[m]);
            ROW xbar[i] = v[i];
        }
        ROW xbar[i] += a[l][i] * ybar;
    }
}

/* S0 (d, d, size), g0 (d, size), x0 (d, size), target (size); size a multiple of LANES. Prompts past `count`
 * are padding: all zeros, so they add nothing. theta and gradient are [layer][P', Q'][row][column].
 * Returns the loss. */
float loss_and_gradient(const float theta[L][2][D][D], const float *S0, const float *g0, const float *x0,
                        const float *target, int size, int count, int context_length,
                        float gradient[L][2][D][D]) {
    const float by_n = 1.0f / context_length;
    lanes total = {0};
    memset(Pbar, 0, sizeof Pbar);
    memset(Qbar, 0, sizeof Qbar);
    for (int block = 0; block < size; block += LANES) {
        ROW COL S[0][i][j] = load(S0 + (i * D + j) * size + block);
        ROW g[0][i] = load(g0 + i * size + block);
        ROW x[0][i] = load(x0 + i * size + block);
        lanes residual = -forward(theta, by_n) - load(target + block);
        total += residual * residual;
        backward(theta, by_n, -2.0f / count * residual);
    }
    for (int l = 0; l < L; l++)
        ROW COL {
            gradient[l][0][i][j] = across(Pbar[l][i][j]);
            gradient[l][1][i][j] = across(Qbar[l][i][j]);
        }
    return across(total) / count;
}
